"""How ModelScope builds a registered class of ours: arguments that it does not take are named, not dropped."""

import inspect
from typing import Any

from ..errors import ConfigurationError


class RefusesUnknown:
    """Mixin for a registered class: `build_from_cfg` calls `_instantiate`."""

    @classmethod
    def _instantiate(cls, **arguments: Any) -> Any:
        """Raises ConfigurationError for arguments that the class does not take, naming those it does."""
        allowed = inspect.signature(cls).parameters
        open_to_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in allowed.values())
        unknown = sorted(arguments.keys() - allowed.keys())
        if unknown and not open_to_all:
            raise ConfigurationError(f"unknown argument {', '.join(unknown)}; allowed here: {', '.join(allowed)}")
        return cls(**arguments)
