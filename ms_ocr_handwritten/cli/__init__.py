"""The command line `ms-ocr`: one file per command, imported when the command is called.

`COMMANDS` maps the name of a command to `module:attribute`. Such a module contains only click declarations and imports
what it needs inside the command, so that `ms-ocr --help` costs no more than click itself.
"""

import errno
import importlib
import io
import sys

import click

from ..errors import OcrError

COMMANDS = {
    "recognize": "ms_ocr_handwritten.cli.recognize:recognize",
    "page": "ms_ocr_handwritten.cli.page:page",
    "serve": "ms_ocr_handwritten.cli.serve:serve",
    "evaluate": "ms_ocr_handwritten.cli.evaluate:evaluate",
    "evaluate-pages": "ms_ocr_handwritten.cli.evaluate_pages:evaluate_pages",
    "train": "ms_ocr_handwritten.cli.train:train",
    "curve": "ms_ocr_handwritten.cli.curve:curve",
    "export": "ms_ocr_handwritten.cli.export:export",
    "app": "ms_ocr_handwritten.cli.app:app",
    "lm": "ms_ocr_handwritten.cli.lm:lm",
    "synth": "ms_ocr_handwritten.cli.synth:synth",
    "lmdb": "ms_ocr_handwritten.cli.lmdb:lmdb",
    "doctor": "ms_ocr_handwritten.cli.doctor:doctor",
}
DISTRIBUTIONS = {"cv2": "opencv-python", "PIL": "pillow"}  # to install, of packages that have another name


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LazyGroup(click.Group):
    """A group that imports its commands on use.

    An OcrError, or lack of a package, of memory or of room for what goes to stdout, becomes a line on stderr, exit
    code 1.
    """

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except OcrError as error:
            click.echo(f"error: {error}", err=True)
            context.exit(1)
        except ModuleNotFoundError as error:  # after a minimal installation, see docs/read.md
            package = (error.name or "").partition(".")[0]
            if package in ("", __package__.partition(".")[0]):
                raise
            package = DISTRIBUTIONS.get(package, package)
            click.echo(
                f"error: this command needs the package {package}, which is missing; `pip install {package}`", err=True
            )
            context.exit(1)
        except OSError as error:  # files are named by an OutputError: this is stdout
            if error.errno not in _NO_ROOM:
                raise
            click.echo(f"error: stdout cannot be written ({error.strerror}); make room and run it again", err=True)
            context.exit(1)
        except MemoryError:
            click.echo("error: out of memory; use smaller images or batches, or fewer workers", err=True)
            context.exit(1)


def _print_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from .. import __version__

        click.echo(f"ms-ocr {__version__}")
        context.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show it.")
def main() -> None:
    """Read handwritten lines; make, check and use their training data.

    Exit codes: 0 success, 1 an error or a problem found, 2 wrong usage. Output to files and pipes is UTF-8.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # escape what an old terminal cannot show instead of failing
        encoding = None if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")
