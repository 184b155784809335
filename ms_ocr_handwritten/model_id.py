"""Model ids (owner/name) where the core takes a directory: the seam through which the plugin answers for them.

The core must not import ModelScope, so `registration` leaves its resolver here when the package is imported; a path
that exists never reaches it.
"""

import os
from collections.abc import Callable

Resolver = Callable[[str, str | None], str]

_resolver: Resolver | None = None


def is_model_id(model: str) -> bool:
    """Whether `model` has the form owner/name."""
    return model.count("/") == 1 and all(model.split("/")) and not model.startswith((".", "~", os.sep))


def answer_with(resolver: Resolver) -> None:
    """Let `resolver` find the directory of an id and a revision from now on."""
    global _resolver
    _resolver = resolver


def local_directory(model: str | os.PathLike[str], revision: str | None = None) -> str:
    """The directory of a path or an id; a path, there or not, as it is. Only a text can be an id, a Path is a path.

    Raises what the resolver raises, HubError.
    """
    if not isinstance(model, str) or os.path.exists(model) or _resolver is None or not is_model_id(model):
        return os.fspath(model)
    return _resolver(model, revision)
