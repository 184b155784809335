"""The Gradio page and its server, by default reachable from this machine only.

Neither the server nor the browser uses the network: Gradio's telemetry is off, system fonts are used, URLs are not
downloaded, and a Content-Security-Policy keeps the browser from all other servers. The only local files that Gradio
serves are uploads, in a folder that is created for each run and then removed.
"""

import atexit
import ipaddress
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backends import PRECISIONS
from ..errors import BackendError, OutputError
from ..image import Limits
from ..image.limits import PAGE_LIMITS
from ..model_dir import default_model_dir
from .handlers import Handlers
from .reading import Recognizers, reads_pages
from .texts import TEXTS

if TYPE_CHECKING:
    import gradio


LEAST_GRADIO = (6, 31)  # older versions are untested


@dataclass(frozen=True)
class Settings:
    """What is served, and to whom.

    models: directories or ids to choose from, none for the embedded model; if only this machine is served, others
        may be typed
    host: address to listen on; "0.0.0.0" admits everybody who can reach this machine
    port: None for the first free one from 7860
    corrections: the LMDB to which corrected readings are appended; None: there is no tab for them
    """

    models: Sequence[str] = ()
    backend: str = "auto"
    precision: str = "auto"
    device: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    corrections: Path | None = None


@dataclass(frozen=True)
class Served:
    """A page that is being served at `url`."""

    url: str
    blocks: "gradio.Blocks"

    def wait(self) -> None:
        """Block until the process is interrupted."""
        self.blocks.block_thread()

    def close(self) -> None:
        self.blocks.close(verbose=False)


def is_loopback(host: str) -> bool:
    """Whether a server at `host` is reachable from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(settings: Settings) -> Served:
    """Start serving the page.

    Raises:
        BackendError: Gradio is missing or too old.
        ConfigurationError, HubError ...: The first model cannot be opened.
        OutputError: The port is in use.
    """
    models = tuple(settings.models) or (default_model_dir(),)
    others = is_loopback(settings.host)
    recognizers = Recognizers(models, settings.backend, settings.device, others)
    recognizers.get(models[0], settings.precision)  # open it now rather than when the first image is dropped
    folder = tempfile.mkdtemp(prefix="ms-ocr-app-")  # accessible to this user only
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = folder
    _require_gradio()
    handlers = Handlers(recognizers, settings.corrections)
    from ._tabs import build

    blocks = build(handlers, models, PRECISIONS, settings.precision, reads_pages(), others)
    max_bytes = PAGE_LIMITS.max_bytes if reads_pages() else Limits().max_bytes
    try:
        _, url, _ = blocks.launch(
            server_name=settings.host,
            server_port=settings.port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            allowed_paths=[folder],
            max_file_size=max_bytes,
            ssr_mode=False,
            pwa=False,
            run_history=False,
            footer_links=["settings"],
            app_kwargs=_guarded(),
            **_looks(),
        )
    except OSError as error:
        raise OutputError(
            f"{settings.host}:{settings.port}: {error}; choose another --port, or end the program that uses this one"
        ) from None
    return Served(url, blocks)


def _require_gradio() -> None:
    try:
        import gradio
    except ImportError as error:
        raise BackendError(
            f"the page needs the package gradio ({error}); `pip install ms_ocr_handwritten[app]`"
        ) from None
    if tuple(map(int, gradio.__version__.split(".")[:2])) < LEAST_GRADIO:
        raise BackendError(
            f"gradio {gradio.__version__} is installed, the page needs {'.'.join(map(str, LEAST_GRADIO))} or newer, "
            "and so Pillow below 13; "
            "`pip install ms_ocr_handwritten[app]` in a separate virtual environment"
        )


def _guarded() -> dict[str, Any]:
    """Server arguments: the guard of all requests and responses."""
    from starlette.middleware import Middleware

    from .guard import Guard

    return {"middleware": [Middleware(Guard)]}


def _looks() -> dict[str, Any]:
    """Arguments of `launch` for the language, the fonts and the page's own style and script."""
    import gradio

    from .drawing import SCRIPT, STYLE
    from .pad import STYLE as PAD_STYLE

    fonts = ["system-ui", "Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", "sans-serif"]
    english = {key: words[0] for key, words in TEXTS.items()}
    chinese = {key: words[1] for key, words in TEXTS.items()}
    return {
        "i18n": gradio.I18n(**{"en": english, "zh": chinese, "zh-CN": chinese, "zh-TW": chinese}),
        "theme": gradio.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"]),
        "css": STYLE + PAD_STYLE,
        "head": SCRIPT,
    }
