"""Model ids to directories: from the hub if it answers within the patience, else from ModelScope's cache.

What to answer for a name that is no directory is ModelScope's knowledge, so it lies here, and everything above and
below is given a directory: ModelScope's functions by `registration`, the core by `model_id.local_directory`.
"""

import contextlib
import importlib.util
import logging
import math
import os
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from ..config_file import CONFIGURATION_FILE
from ..errors import ConfigurationError, HubError
from ..model_dir import VOCABULARY_FILE, WEIGHTS_FILES
from ..model_id import is_model_id
from .registration import unwrapped

logger = logging.getLogger(__name__)

PATIENCE_VARIABLE = "MS_OCR_HUB_PATIENCE"
PATIENCE = 10.0  # s, until the hub's first answer: name, connection, TLS and request, each a second on EDGE
PATIENCE_WITH_COPY = 3.0  # s, if the cache holds a copy, for which nobody should wait as long
UNFINISHED = ".incomplete"  # what ModelScope from 1.38 on appends to a file that has come in part
INSTEAD = "or read with the model that is embedded in this package: model=ms_ocr_handwritten.default_model_dir()"


class Place(NamedTuple):
    """Where ModelScope looks, by its own environment variables."""

    endpoint: str  # "https://www.modelscope.cn"
    cache: str  # folder


class HubAway(Exception):
    """The hub gave no answer within the patience; the message says why."""


def resolve_model(model: str, revision: str | None = None) -> str:
    """The directory of `model`: a directory itself, or an id, of which the files are downloaded or found in the cache.

    Args:
        model: a path, or an id of the hub (owner/name).
        revision: a branch or tag of the id; None takes ModelScope's default.

    Raises:
        ConfigurationError: no configuration.json in the directory, or neither a directory nor of the form of an id.
        HubError: the hub is away and the cache holds no complete copy; the hub has no such model or revision; the
            download broke; or ModelScope is not installed.
    """
    if os.path.exists(model):
        if not os.path.exists(os.path.join(model, CONFIGURATION_FILE)):
            raise ConfigurationError(f"{model}: holds no {CONFIGURATION_FILE}; name the directory that does")
        return model
    if not is_model_id(model):
        raise ConfigurationError(f"{model}: no such directory, and not the form of a model id (owner/name)")
    if not importlib.util.find_spec("modelscope"):
        raise HubError(f"{model}: no such directory; for an id of the hub, `pip install modelscope`, {INSTEAD}")
    if copy := copy_to_take(model, revision):
        return copy
    return _download(model, revision)


def copy_to_take(model: str, revision: str | None) -> str | None:
    """The complete copy of an id in ModelScope's cache if the hub is away; None if the hub is to be asked for it.

    Then one line on stderr says what comes from where, unless there is a copy, which is only compared.

    Raises:
        HubError: the hub is away and there is no complete copy, or it has no such model.
    """
    place, copy = modelscope_place(), _cached(model, revision)
    complete = copy is not None and is_complete(copy)
    try:
        status = ask_hub(place.endpoint, f"models/{model}", patience(PATIENCE_WITH_COPY if complete else PATIENCE))
    except HubAway as reason:
        if complete:
            logger.warning("%s: %s; reading the copy in %s", model, reason, copy)
            return copy
        what = f"only a part of it has come into {copy}" if copy else f"it is not in ModelScope's cache, {place.cache}"
        raise HubError(f"{model}: no such directory; {reason}, and {what}. Connect and try again, {INSTEAD}") from None
    if status == 404:
        raise HubError(
            f"{model}: no such directory, and no model that the hub at {place.endpoint} shows to you; check the id, "
            "log in with `modelscope login` if it is private"
        )
    present = copy if revision else _cached(model, "master")  # else ModelScope may find another revision than it takes
    if present is None or not is_complete(present):
        print(f"{model}: downloading from {place.endpoint} into {place.cache}", file=sys.stderr, flush=True)
    return None


def modelscope_place() -> Place:
    """Asked anew every time, as the environment may be changed by the program."""
    importlib.import_module("modelscope.hub.snapshot_download")
    if "modelscope_hub" in sys.modules:  # on which ModelScope is built from 1.38 on
        from modelscope_hub.config import HubConfig

        config = HubConfig()
        return Place(str(config.endpoint), str(config.cache_dir))
    from modelscope.hub.utils.utils import get_endpoint
    from modelscope.utils.file_utils import get_modelscope_cache_dir

    return Place(get_endpoint(), get_modelscope_cache_dir())


def patience(default: float) -> float:
    """Seconds: what the environment says, else `default`. Raises ConfigurationError."""
    text = os.environ.get(PATIENCE_VARIABLE)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < threading.TIMEOUT_MAX:
        raise ConfigurationError(f"{PATIENCE_VARIABLE} is {text!r}; seconds expected, such as 30, or 0 to ask no hub")
    return seconds


def ask_hub(endpoint: str, what: str, seconds: float) -> int:
    """The status that the hub answers with to a question about 'models/...' or 'datasets/...'; follows proxies.

    Raises HubAway after `seconds`. In a thread, as looking up a name can outlast any socket's time limit.
    """
    if seconds == 0:
        raise HubAway(f"the hub was not asked ({PATIENCE_VARIABLE} is 0)")
    import requests

    answers: list[int | Exception] = []

    def ask() -> None:
        try:
            with requests.get(f"{endpoint}/api/v1/{what}", timeout=seconds, stream=True) as response:
                answers.append(response.status_code)
        except requests.RequestException as error:
            answers.append(error)

    thread = threading.Thread(target=ask, name="ms-ocr-hub", daemon=True)
    thread.start()
    thread.join(seconds)
    if not answers or isinstance(answers[0], requests.Timeout):
        raise HubAway(
            f"the hub at {endpoint} did not answer within {seconds:g} s ({PATIENCE_VARIABLE} sets how long to wait)"
        )
    answer = answers[0]
    if isinstance(answer, Exception):
        raise HubAway(f"the hub at {endpoint} cannot be reached ({_root_cause(answer)})")
    if answer >= 500:
        raise HubAway(f"the hub at {endpoint} answers with status {answer}")
    return answer


def is_complete(directory: str) -> bool:
    """Whether a model's directory in the cache holds what reading needs, and nothing of which only a part has come."""
    folder = Path(directory)
    if next(folder.rglob(f"*{UNFINISHED}"), None) is not None:
        return False
    required = (folder / CONFIGURATION_FILE, folder / VOCABULARY_FILE)
    return all(file.exists() for file in required) and any((folder / name).exists() for name in WEIGHTS_FILES)


def _cached(model: str, revision: str | None) -> str | None:
    from modelscope.hub.snapshot_download import snapshot_download

    try:
        return unwrapped(snapshot_download)(model, revision=revision, local_files_only=True)
    except Exception:  # ModelScope raises several kinds, ValueError among them, for "not there"
        return None


def _download(model: str, revision: str | None) -> str:
    """What ModelScope downloads, with its own progress bar; files that are there already are only compared."""
    from modelscope.hub.snapshot_download import snapshot_download

    try:
        with contextlib.redirect_stdout(sys.stderr):  # ModelScope before 1.38 prints there, between a program's results
            return unwrapped(snapshot_download)(model, revision=revision)
    except Exception as error:  # of ModelScope, requests, urllib3
        endpoint, cache = modelscope_place()
        failed = getattr(error, "failed_files", None) or {"its files": error}  # of ModelScope from 1.38 on
        if revision is not None and type(error).__name__ in ("NotExistError", "HTTPError"):
            raise HubError(f"{model}: the hub at {endpoint} has no revision {revision!r} ({error})") from error
        raise HubError(
            f"{model}: the download of {', '.join(failed)} from {endpoint} broke off "
            f"({_root_cause(next(iter(failed.values())))}). The partial file is kept in {cache}, and the next "
            f"run continues from there. Try again, {INSTEAD}"
        ) from error


def _root_cause(error: BaseException) -> str:
    """The innermost reason of an error of requests or urllib3, whose own texts are addresses of objects and URLs."""
    while True:
        inner = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            return f"{type(error).__name__}: {error}"
        error = inner
