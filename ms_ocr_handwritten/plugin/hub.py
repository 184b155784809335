"""Resolves model ids to directories: from the hub if it responds in time, else from ModelScope's cache.

Handling names that are not directories requires ModelScope, so it is done here, and all other code is given a
directory: ModelScope's functions by `registration`, the core by `model_id.local_directory`.
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
PATIENCE = 10.0  # s, until the hub's first response: DNS, connection, TLS and request, each 1 s on EDGE
PATIENCE_WITH_COPY = 3.0  # s, if the cache holds a copy, so that nobody waits long for nothing
UNFINISHED = ".incomplete"  # appended by ModelScope 1.38 and later to a partially downloaded file
INSTEAD = "or read with the model that is embedded in this package: model=ms_ocr_handwritten.default_model_dir()"


class Place(NamedTuple):
    """Where ModelScope looks, according to its environment variables."""

    endpoint: str  # "https://www.modelscope.cn"
    cache: str  # folder


class HubAway(Exception):
    """The hub did not respond in time; the message says why."""


def resolve_model(model: str, revision: str | None = None) -> str:
    """The directory of `model`: the directory itself, or that of an id, whose files are downloaded or cached.

    Args:
        model: a path, or an id of the hub (owner/name).
        revision: a branch or tag of the id; None means ModelScope's default.

    Raises:
        ConfigurationError: no configuration.json in the directory, or neither a directory nor a valid id.
        HubError: the hub is unavailable and the cache holds no complete copy; the hub has no such model or revision;
            the download failed; or ModelScope is not installed.
    """
    if os.path.exists(model):
        if not os.path.exists(os.path.join(model, CONFIGURATION_FILE)):
            raise ConfigurationError(f"{model}: holds no {CONFIGURATION_FILE}; name the directory that does")
        return model
    if not is_model_id(model):
        raise ConfigurationError(f"{model}: no such directory, and not a valid model id (owner/name)")
    if not importlib.util.find_spec("modelscope"):
        raise HubError(f"{model}: no such directory; for an id of the hub, `pip install modelscope`, {INSTEAD}")
    if copy := copy_to_take(model, revision):
        return copy
    return _download(model, revision)


def copy_to_take(model: str, revision: str | None) -> str | None:
    """The complete copy of an id in ModelScope's cache if the hub is unavailable; None if ModelScope is to fetch it.

    In the latter case a line on stderr announces the download, unless a complete copy is there, which is only compared.

    Raises:
        HubError: the hub is unavailable and there is no complete copy, or it has no such model.
    """
    place, copy = modelscope_place(), _cached(model, revision)
    complete = copy is not None and is_complete(copy)
    try:
        status = ask_hub(place.endpoint, f"models/{model}", patience(PATIENCE_WITH_COPY if complete else PATIENCE))
    except HubAway as reason:
        if complete:
            logger.warning("%s: %s; reading the copy in %s", model, reason, copy)
            return copy
        what = f"only a part of it is in {copy}" if copy else f"it is not in ModelScope's cache, {place.cache}"
        raise HubError(f"{model}: no such directory; {reason}, and {what}. Connect and try again, {INSTEAD}") from None
    if status == 404:
        raise HubError(
            f"{model}: no such directory, and no such model on the hub at {place.endpoint}; check the id, "
            "log in with `modelscope login` if it is private"
        )
    present = copy if revision else _cached(model, "master")  # else ModelScope may find another revision than it loads
    if present is None or not is_complete(present):
        print(f"{model}: downloading from {place.endpoint} into {place.cache}", file=sys.stderr, flush=True)
    return None


def modelscope_place() -> Place:
    """Determined at each call, as the program may change the environment."""
    importlib.import_module("modelscope.hub.snapshot_download")
    if "modelscope_hub" in sys.modules:  # the basis of ModelScope from 1.38 on
        from modelscope_hub.config import HubConfig

        config = HubConfig()
        return Place(str(config.endpoint), str(config.cache_dir))
    from modelscope.hub.utils.utils import get_endpoint
    from modelscope.utils.file_utils import get_modelscope_cache_dir

    return Place(get_endpoint(), get_modelscope_cache_dir())


def patience(default: float) -> float:
    """Seconds: from the environment, else `default`. Raises ConfigurationError."""
    text = os.environ.get(PATIENCE_VARIABLE)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < threading.TIMEOUT_MAX:
        raise ConfigurationError(f"{PATIENCE_VARIABLE} is {text!r}; expected seconds, such as 30, or 0 to skip the hub")
    return seconds


def ask_hub(endpoint: str, what: str, seconds: float) -> int:
    """The HTTP status of the hub for a path 'models/...' or 'datasets/...'; honours proxies.

    Raises HubAway after `seconds`. Runs in a thread, as a DNS lookup can exceed any socket timeout.
    """
    if seconds == 0:
        raise HubAway(f"the hub was not contacted ({PATIENCE_VARIABLE} is 0)")
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
    """Whether a model's directory in the cache holds all files needed for reading, and no partial downloads."""
    folder = Path(directory)
    if next(folder.rglob(f"*{UNFINISHED}"), None) is not None:
        return False
    required = (folder / CONFIGURATION_FILE, folder / VOCABULARY_FILE)
    return all(file.exists() for file in required) and any((folder / name).exists() for name in WEIGHTS_FILES)


def _cached(model: str, revision: str | None) -> str | None:
    from modelscope.hub.snapshot_download import snapshot_download

    try:
        return unwrapped(snapshot_download)(model, revision=revision, local_files_only=True)
    except Exception:  # ModelScope raises various exceptions, among them ValueError, for "not found"
        return None


def _download(model: str, revision: str | None) -> str:
    """Let ModelScope download, with its own progress bar; files that are present already are only compared."""
    from modelscope.hub.snapshot_download import snapshot_download

    try:
        with contextlib.redirect_stdout(sys.stderr):  # ModelScope before 1.38 prints to stdout, among results
            return unwrapped(snapshot_download)(model, revision=revision)
    except Exception as error:  # of ModelScope, requests, urllib3
        endpoint, cache = modelscope_place()
        failed = getattr(error, "failed_files", None) or {"its files": error}  # ModelScope 1.38 and later
        if revision is not None and type(error).__name__ in ("NotExistError", "HTTPError"):
            raise HubError(f"{model}: the hub at {endpoint} has no revision {revision!r} ({error})") from error
        raise HubError(
            f"{model}: the download of {', '.join(failed)} from {endpoint} broke off "
            f"({_root_cause(next(iter(failed.values())))}). The partial file is kept in {cache}, and the next "
            f"run continues from there. Try again, {INSTEAD}"
        ) from error


def _root_cause(error: BaseException) -> str:
    """The innermost cause of an error of requests or urllib3, whose own messages are object addresses and URLs."""
    while True:
        inner = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            return f"{type(error).__name__}: {error}"
        error = inner
