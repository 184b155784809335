"""Helpers of `config.py`: validated access to JSON objects, and translation of hooks to the keys they stand for."""

import copy
import math
import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

from .errors import ConfigurationError

Allowed = TypeVar("Allowed", bound="str | None")


class Section:
    """One JSON object: keys are taken one by one, and those left at the end are unknown."""

    def __init__(self, raw: Any, source: str, path: str) -> None:
        self.source, self.path = source, path
        if not isinstance(raw, Mapping):
            raise ConfigurationError(f"{source}: {path or 'the top level'} is {raw!r}, not an object")
        self.raw = raw
        self.known: set[str] = set()

    def fail(self, key: str, message: str) -> ConfigurationError:
        return ConfigurationError(f"{self.source}: {self.dotted(key)} {message}")

    def dotted(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def take(self, key: str, kind: type, default: Any = None) -> Any:
        """The value of `key`; `default` if it is absent or null. Raises ConfigurationError for another type."""
        self.known.add(key)
        value = self.raw.get(key)
        if value is None:
            return default
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.fail(key, f"is {value!r}; {kind.__name__} expected")
        return value

    def number(
        self,
        key: str,
        kind: type,
        default: Any,
        *,
        least: float = -math.inf,
        above: float = -math.inf,
        below: float = math.inf,
    ) -> Any:
        """A number within the bounds; `default`, which may be None, is not checked."""
        value = self.take(key, kind)
        if value is None:
            return default
        if not (value >= least and above < value < below):  # written so that NaN fails
            bounds = ((least, "at least"), (above, "above"), (below, "below"))
            expected = " and ".join(f"{word} {bound}" for bound, word in bounds if math.isfinite(bound))
            raise self.fail(key, f"is {value}; {expected or 'a finite number'} expected")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A string or a list of strings; () if it is absent."""
        value = self.take(key, object, [])
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
            raise self.fail(key, f"is {value!r}; a string or a list of strings expected")
        return tuple(texts)

    def without_effect(self, key: str, reason: str) -> None:
        """Accept a key of ModelScope's schema that has no effect here, with a warning if it is given."""
        if self.take(key, object) is not None:
            warnings.warn(f"{self.source}: {self.dotted(key)} has no effect: {reason}", stacklevel=2)

    def choice(self, key: str, allowed: tuple[Allowed, ...], default: str | None) -> Allowed:
        value = self.take(key, str, default)
        if value not in allowed:
            raise self.fail(key, f"is {value!r}; one of {', '.join(map(repr, allowed))} expected")
        return value

    def only(self, key: str, value: Any, remedy: str) -> None:
        """Take a key that may only be absent or have one supported value."""
        given = self.take(key, type(value), value)
        if given != value:
            raise self.fail(key, f"is {given!r}; {value!r} expected: {remedy}")

    def section(self, key: str) -> "Section":
        return Section(self.take(key, object, {}), self.source, self.dotted(key))

    def rest(self) -> dict[str, Any]:
        return {key: self.raw[key] for key in self.raw if key not in self.known}

    def finish(self) -> None:
        unknown = sorted(self.rest())
        if unknown:
            raise ConfigurationError(
                f"{self.source}: unknown key {', '.join(map(self.dotted, unknown))}; "
                f"allowed here: {', '.join(sorted(self.known))}"
            )


_HOOKS = {  # hook type -> (the object its keys belong to, the keys)
    "CheckpointHook": ("train.checkpoint.period", ("interval", "by_epoch", "save_dir", "max_checkpoint_num")),
    "BestCkptSaverHook": (
        "train.checkpoint.best",
        ("metric_key", "rule", "interval", "by_epoch", "save_dir", "max_checkpoint_num", "save_file_name"),
    ),
    "EvaluationHook": ("evaluation.period", ("interval", "by_epoch")),
    "TextLoggerHook": ("train.logging", ("interval", "by_epoch", "out_dir")),
    "OptimizerHook": ("train.optimizer.options", ("cumulative_iters", "grad_clip")),
    "LrSchedulerHook": ("train.lr_scheduler.options", ("by_epoch", "warmup")),
    "IterTimerHook": ("", ()),
}


def without_hooks(raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A copy of `raw` with the keys of the list `train.hooks` moved to their places in the newer schema.

    Raises ConfigurationError for an unknown hook or key, or if both schemas set a key to different values.
    """
    plain = copy.deepcopy(dict(raw))
    train = plain.get("train")
    if not isinstance(train, dict) or train.get("hooks") is None:
        return plain
    hooks = train.pop("hooks")
    if not isinstance(hooks, list):
        raise ConfigurationError(f"{source}: train.hooks is {hooks!r}; a list expected")
    for index, raw_hook in enumerate(hooks):
        hook = Section(raw_hook, source, f"train.hooks[{index}]")
        place, keys = _HOOKS[hook.choice("type", tuple(_HOOKS), None)]
        values = {key: hook.take(key, object) for key in keys}
        hook.finish()
        _put(plain, hook, place, {key: value for key, value in values.items() if value is not None})
    return plain


def _put(plain: dict[str, Any], hook: Section, place: str, values: dict[str, Any]) -> None:
    """Set `values` in the object at the dotted `place`."""
    target = plain
    for name in place.split(".") if values else ():
        if target.get(name) is None:  # null means absent, as in `Section.take`
            target[name] = {}
        target = target[name]
        if not isinstance(target, dict):
            return  # reported when that object is read
    for key, value in values.items():
        if target.get(key) is None:
            target[key] = value
        elif target[key] != value:
            raise hook.fail(key, f"is {value!r}, but {place}.{key} is {target[key]!r}; remove one of the two")
