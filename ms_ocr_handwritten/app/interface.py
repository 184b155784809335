"""The page itself, by Gradio, and the server that shows it: to this machine alone unless told otherwise.

Nothing is asked of the network, neither by the server nor by the browser: Gradio's telemetry is off, fonts are those of
the system, URLs are not fetched, and a Content-Security-Policy forbids the browser what is not of this server. Of the
files of this machine Gradio serves those that were uploaded, in a folder that is made for this run and removed with it.
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


LEAST_GRADIO = (6, 31)  # older ones were not tested


@dataclass(frozen=True)
class Settings:
    """What is served, and to whom.

    models: directories or ids to choose from, none for the embedded model; where only this machine is served, others
        may be typed
    host: whose address is listened at; "0.0.0.0" is everybody's who reaches this machine
    port: None for the first that is free from 7860 on
    corrections: the LMDB that corrected readings are appended to; None: there is no tab for them
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
        """Until the process is interrupted."""
        self.blocks.block_thread()

    def close(self) -> None:
        self.blocks.close(verbose=False)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(settings: Settings) -> Served:
    """Begin to serve the page.

    Raises:
        BackendError: Gradio is missing or too old.
        ConfigurationError, HubError ...: The first model cannot be opened.
        OutputError: The port is taken.
    """
    models = tuple(settings.models) or (default_model_dir(),)
    others = is_loopback(settings.host)
    recognizers = Recognizers(models, settings.backend, settings.device, others)
    recognizers.get(models[0], settings.precision)  # better now than when somebody has dropped a picture
    folder = tempfile.mkdtemp(prefix="ms-ocr-app-")  # of this user alone
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
    """Arguments of the server: what guards every request and every answer."""
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
