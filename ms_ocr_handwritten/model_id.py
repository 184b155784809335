"""Model ids (owner/name) in place of model directories: the hook through which the plugin resolves them.

The core must not import ModelScope, so `registration` sets its resolver here when the package is imported; existing
paths are never passed to it.
"""

import os
from collections.abc import Callable

Resolver = Callable[[str, str | None], str]

_resolver: Resolver | None = None


def is_model_id(model: str) -> bool:
    """Whether `model` has the form owner/name."""
    return model.count("/") == 1 and all(model.split("/")) and not model.startswith((".", "~", os.sep))


def answer_with(resolver: Resolver) -> None:
    """Use `resolver` from now on to find the directory of an id and a revision."""
    global _resolver
    _resolver = resolver


def local_directory(model: str | os.PathLike[str], revision: str | None = None) -> str:
    """The directory of an id; a path, existing or not, is returned as it is. Only a str can be an id, never a Path.

    Raises HubError, from the resolver.
    """
    if not isinstance(model, str) or os.path.exists(model) or _resolver is None or not is_model_id(model):
        return os.fspath(model)
    return _resolver(model, revision)
