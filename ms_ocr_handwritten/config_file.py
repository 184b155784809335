"""Reading `configuration.json` as JSON with limits on bytes, depth and digits."""

import json
import os
from typing import Any

from .errors import ConfigurationError
from .files import read_regular

CONFIGURATION_FILE = "configuration.json"
MOST_JSON = 2**20  # bytes of a configuration
MOST_NESTED = 50
MOST_DIGITS = 18  # of an integer: fits 64 bits


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a configuration file. Raises ConfigurationError if it is missing or not a JSON object of a sane size."""
    try:
        content = read_regular(path, MOST_JSON + 1)
        raw = json.loads(content.decode("utf-8"), parse_int=_whole_number) if len(content) <= MOST_JSON else None
        nested = _depth(raw)
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path}: no such file; a model directory holds {CONFIGURATION_FILE}, "
            "pytorch_model.pt (or model.onnx) and vocab.txt"
        ) from None
    except RecursionError:
        nested = MOST_NESTED + 1
    except (OSError, ValueError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise ConfigurationError(f"{path}: not readable as JSON ({error})") from error
    if len(content) > MOST_JSON:
        raise ConfigurationError(f"{path}: over {MOST_JSON} bytes, too many for a configuration; name another file")
    if nested > MOST_NESTED:
        raise ConfigurationError(f"{path}: nested over {MOST_NESTED} levels deep, too many for a configuration")
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{path}: holds a {type(raw).__name__}, not an object; see the README for a sample")
    return raw


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _depth(value: Any) -> int:
    """The nesting depth of lists and objects; 0 for a plain value."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, (dict, list))]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth
