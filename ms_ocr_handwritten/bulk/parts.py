"""The results of a long run, as files with a fixed number of rows, each of which appears only once complete.

    lines.jsonl -> lines-00000.jsonl, lines-00001.jsonl ..., and lines.run.json

Part p holds the rows from p * size on, whoever reads them: one process or many, concurrently or after a kill. So an
existing part is complete, and no row can be duplicated or lost. lines.run.json records the inputs and settings of the
parts, and a run with different ones is rejected.
"""

import glob
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, TypeVar

from ..atomic import TEMPORARY_SUFFIX, appearing_whole, write_atomically
from ..errors import ConfigurationError, ImageError, OcrError, OutputError
from ..line import Line, line_row
from .columns import arrow_types, columns_of

Item = TypeVar("Item")
Write = Callable[[str, Line | OcrError], None]  # called with the name of each line and its result

SUFFIXES = (".jsonl", ".parquet")
_ROWS = 512  # of Parquet per write


class Parts:
    """The files of a run whose results are named `out`, FILE.jsonl or FILE.parquet."""

    def __init__(self, out: Path, n_best: int = 1) -> None:
        """n_best: as for `columns_of`. Raises ConfigurationError for a name with another suffix."""
        if out.suffix not in SUFFIXES:
            raise ConfigurationError(f"{out}: results are written as {' or '.join(SUFFIXES)}; give such a name")
        self.out, self._n_best = out, n_best
        self.run_file = out.with_suffix(".run.json")

    def path(self, part: int) -> Path:
        return self.out.with_name(f"{self.out.stem}-{part:05d}{self.out.suffix}")

    def done(self) -> set[int]:
        """The parts that are there. Raises OutputError where the folder cannot be listed."""
        form = re.compile(rf"{re.escape(self.out.stem)}-(\d{{5,}}){re.escape(self.out.suffix)}")
        try:
            names = os.listdir(self.out.parent)
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise OutputError(
                f"{self.out.parent}: cannot be listed ({error.strerror}); name a file in a folder: another --out"
            ) from error
        return {int(match[1]) for name in names if (match := form.fullmatch(name))}

    def agree(self, told: dict[str, Any]) -> None:
        """Record what this run reads and how, or compare it with the record of an earlier run or another process.

        Raises ConfigurationError if they differ, OutputError if it cannot be written.
        """
        told = json.loads(json.dumps(told))  # in the form in which it is read back
        if self.former() is None:
            write_atomically(self.run_file, json.dumps(told, indent=1).encode("ascii"))
        former = self.former() or {}
        differing = [name for name in {**told, **former} if told.get(name) != former.get(name)]
        if differing:
            before = ", ".join(f"{name} {former.get(name)!r}, now {told.get(name)!r}" for name in differing)
            raise ConfigurationError(
                f"{self.run_file}: was made by a different run: {before}; repeat the command that started it, or give "
                "another --out"
            )

    def former(self) -> dict[str, Any] | None:
        """What `agree` wrote, None if it has not yet. Raises ConfigurationError if the file is something else."""
        try:
            told = json.loads(self.run_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{self.run_file}: cannot be read ({error}); repair it, or use another --out"
            ) from error
        if not isinstance(told, dict):
            raise ConfigurationError(f"{self.run_file}: is not the file of a run; use another --out")
        return told

    @contextmanager
    def writing(self, part: int) -> Iterator[Write]:
        """A function that takes the rows of a part; the part appears at the end of the block. Raises OutputError."""
        path = self.path(part)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*{TEMPORARY_SUFFIX}"):  # by a run that was killed
            left.unlink(missing_ok=True)
        write_rows = self._parquet if path.suffix == ".parquet" else self._json_lines
        with appearing_whole(path) as temporary:
            with write_rows(temporary) as write:
                yield write
            if not os.path.exists(temporary):
                raise OutputError(
                    f"{path}: another run writes it at the same time; let that one end, then --resume, or give each "
                    "its own --shard or --out"
                )

    @contextmanager
    def _json_lines(self, path: str) -> Iterator[Write]:
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            yield lambda name, line: print(json_row(name, line), file=file)

    @contextmanager
    def _parquet(self, path: str) -> Iterator[Write]:
        import pyarrow
        import pyarrow.parquet

        schema = pyarrow.schema([("path", pyarrow.string()), *arrow_types(self._n_best).items()])
        names: list[str] = []
        lines: list[Line | OcrError] = []

        def flush() -> None:
            writer.write_table(pyarrow.table({"path": names, **columns_of(lines, self._n_best)}, schema=schema))
            names.clear()
            lines.clear()

        def write(name: str, line: Line | OcrError) -> None:
            names.append(name)
            lines.append(line)
            if len(lines) == _ROWS:
                flush()

        with pyarrow.parquet.ParquetWriter(path, schema) as writer:
            yield write
            if lines:
                flush()


def json_row(name: str, line: Line | OcrError) -> str:
    """A line as a JSON object: path, and text, score, chars and any alternatives; or error."""
    if isinstance(line, OcrError):
        if isinstance(line, ImageError):
            line.index = None  # the name is more informative
        return json.dumps({"path": name, "error": str(line)}, ensure_ascii=False)
    return json.dumps(line_row(name, line), ensure_ascii=False)


def groups(items: Iterable[Item], size: int) -> Iterator[tuple[int, Iterator[Item]]]:
    """Number and items of each part; items of a part that are not consumed are skipped."""
    rest = iter(items)
    for part in count():
        group = islice(rest, size)
        first = next(group, None)
        if first is None:
            return
        yield part, chain([first], group)
        for _ in group:
            pass
