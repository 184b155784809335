"""How ModelScope instantiates our registered classes: unknown arguments raise an error instead of being dropped."""

import inspect
from typing import Any

from ..errors import ConfigurationError


class RefusesUnknown:
    """Mixin for a registered class: ModelScope's `build_from_cfg` calls `_instantiate`."""

    @classmethod
    def _instantiate(cls, **arguments: Any) -> Any:
        """Raises ConfigurationError for arguments that the class does not accept, listing those it does."""
        allowed = inspect.signature(cls).parameters
        open_to_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in allowed.values())
        unknown = sorted(arguments.keys() - allowed.keys())
        if unknown and not open_to_all:
            raise ConfigurationError(f"unknown argument {', '.join(unknown)}; allowed here: {', '.join(allowed)}")
        return cls(**arguments)
