"""Model ids and directories: a local directory as it is, an id from the hub or, offline, from ModelScope's cache."""

import os
import socket
import threading
from urllib.parse import urlparse
from urllib.request import getproxies, proxy_bypass

from ..config import CONFIGURATION_FILE
from ..errors import ConfigurationError, HubError

PATIENCE = 0.8  # s, to find out whether the hub can be reached


def resolve_model(model: str, revision: str | None = None) -> str:
    """What ModelScope should be given for `model`: a directory, or an id if the hub can be reached.

    Raises ConfigurationError for a directory without configuration.json, and HubError, within a second, for an id that
    is neither in the cache nor, the hub being out of reach, to be had.
    """
    if os.path.exists(model):
        if not os.path.exists(os.path.join(model, CONFIGURATION_FILE)):
            raise ConfigurationError(f"{model}: holds no {CONFIGURATION_FILE}; name the directory that does")
        return model
    if model.count("/") != 1 or model.startswith((".", "~", os.sep)):
        raise ConfigurationError(f"{model}: no such directory, and not the form of a model id (owner/name)")
    if _reachable():
        return model
    cached = _cached(model, revision)
    if cached is None:
        raise HubError(
            f"{model}: no such directory; the hub cannot be reached ({_host()[0]}), and the model is not in "
            "ModelScope's cache. Connect and try again, or read with the model that is embedded in this "
            "package: model=ms_ocr_handwritten.default_model_dir()"
        )
    return cached


def _cached(model: str, revision: str | None) -> str | None:
    from modelscope.hub.snapshot_download import snapshot_download

    try:
        return snapshot_download(model, revision=revision, local_files_only=True)
    except Exception:  # ModelScope raises several kinds, ValueError among them, for "not there"
        return None


def _host() -> tuple[str, int]:
    """Host and port to connect to for the hub: its own, or those of the proxy that the environment names."""
    from modelscope.hub.utils.utils import get_endpoint

    address = urlparse(get_endpoint())
    proxy = getproxies().get(address.scheme)
    if proxy and not proxy_bypass(address.hostname or ""):
        address = urlparse(proxy if "://" in proxy else f"http://{proxy}")
    return address.hostname or "", address.port or (443 if address.scheme == "https" else 80)


def _reachable() -> bool:
    """Whether that port answers. In a thread: looking up a name can hang for longer than any socket's time limit."""
    answered = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection(_host(), timeout=PATIENCE).close()
            answered.set()
        except OSError:
            pass

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answered.is_set()
