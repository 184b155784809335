"""`ms-ocr recognize --out`: reads very many lines in parts, across processes and machines, resumable after a kill.

Every process iterates over all sources and reads those in its own parts; it skips the others without opening them.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import OcrError, OutputError
from .output import exit_if_unreadable, number_of, report_unreadable
from .reading import read_sources, reader_of
from .sources import count, identify, places

if TYPE_CHECKING:
    from tqdm import tqdm

    from ..bulk.parts import Parts
    from ..recognizer import Recognizer

_LOG_SECONDS = 60  # between progress reports if stderr is not a terminal
_LOOK_SECONDS = 0.5  # between checks on the workers' progress


@dataclass(frozen=True)
class Shard:
    """Every `number`th part, starting from part `index`, counted from 0."""

    index: int
    number: int

    def holds(self, part: int) -> bool:
        return part % self.number == self.index

    def split(self, number: int) -> "list[Shard]":
        return [Shard(self.index + worker * self.number, self.number * number) for worker in range(number)]


class ShardType(click.ParamType):
    """I/N, I from 1 to N."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        first, _, number = str(value).partition("/")
        if not (first.isdecimal() and number.isdecimal() and 1 <= int(first) <= int(number)):
            self.fail(f"{value!r} is not a share such as 1/8, the first of eight", param, ctx)
        return Shard(int(first) - 1, int(number))


@dataclass(frozen=True)
class Run:
    """What is read, how, and where the output goes; the same for all shards. Can be pickled."""

    paths: tuple[str, ...]
    column: str
    out: Path
    part_size: int
    model: str | None
    backend: str
    precision: str
    batch_size: int
    opened: dict[str, Any]  # for `Recognizer.from_pretrained`
    asked: dict[str, Any]  # for `Recognizer.read_many`

    def open(self, threads: int | None) -> "Recognizer":
        from ..bulk.opening import open_recognizer

        return open_recognizer(self.model, self.backend, self.precision, threads=threads, **self.opened)

    def reading_with(self, backend: Any, precision: Any) -> "Run":
        """This run with "auto" replaced by the given backend and precision."""
        return replace(
            self,
            backend=backend if self.backend == "auto" else self.backend,
            precision=precision if self.precision == "auto" else self.precision,
        )

    def parts(self) -> "Parts":
        from ..bulk.parts import Parts

        return Parts(self.out, self.asked["n_best"])

    def told(self) -> dict[str, Any]:
        """The settings that all processes and runs which write these parts must share."""
        from ..bulk.opening import decoding_digest, model_digest

        told = {**asdict(self), **self.opened, **self.asked}
        for name in ("out", "opened", "asked", "device"):
            del told[name]
        told |= {"model": model_digest(self.model) or self.model, "sources": identify(self.paths)}
        if digest := decoding_digest(self.opened["language_model"], self.asked["lexicon"]):
            told["decoding files"] = digest
        return told


def run_shard(run: Run, shard: Shard, workers: int, resume: bool) -> None:
    """Read the parts of a shard that are still missing; exits with code 1 if an image could not be read.

    Raises:
        OutputError: Parts of the shard are there and `resume` is not asked for, or cannot be written; a worker died.
        ConfigurationError: The parts are those of another run.
        OcrError: What is asked of the recogniser, such as a lexicon, is not what it takes; nothing is written then.
    """
    parts = run.parts()
    done = frozenset(filter(shard.holds, parts.done()))
    if done and not resume:
        raise OutputError(
            f"{parts.path(min(done))}: exists already; --resume reads what is missing, or give another --out"
        )
    threads = None if workers == 1 else 1
    recognizer = None
    former = parts.former()
    if former is not None:  # "auto" is resolved as in the earlier run
        run = run.reading_with(former.get("backend"), former.get("precision"))
    if former is None or workers == 1:
        recognizer = run.open(threads)
        run = run.reading_with(recognizer.backend, recognizer.precision)
        list(recognizer.read_many((), **run.asked))  # checks what is asked, before it is written down
    parts.agree(run.told())
    begun = time.monotonic()
    with _bar(run, shard, done) as bar:
        if recognizer is not None and workers == 1:
            read, unreadable = _read_here(run, shard, done, recognizer, bar)
        else:
            del recognizer  # each worker has its own
            read, unreadable = _read_in_workers(run, shard, done, workers, bar)
    seconds = max(time.monotonic() - begun, 1e-3)
    before = f"; {number_of(len(done), 'part')} already there" if done else ""
    click.echo(f"{run.out}: {number_of(read, 'line')} read, {read / seconds:.1f} a second{before}", err=True)
    exit_if_unreadable(unreadable, read)


def _bar(run: Run, shard: Shard, done: frozenset[int]) -> "tqdm":
    """Progress, rate and time left on stderr; only at intervals if that is not a terminal."""
    from tqdm import tqdm

    total = count(run.paths)
    mine = before = None if total is None else 0
    if total is not None:
        sizes = {part: min(run.part_size, total - start) for part, start in enumerate(range(0, total, run.part_size))}
        mine = sum(size for part, size in sizes.items() if shard.holds(part))
        before = sum(sizes.get(part, 0) for part in done)
    pauses = ("mininterval", "maxinterval", "delay")
    between = {} if sys.stderr.isatty() else dict.fromkeys(pauses, _LOG_SECONDS)
    return tqdm(desc="recognize", total=mine, initial=before or 0, unit="line", leave=False, **between)


def _read_parts(
    run: Run, shard: Shard, done: frozenset[int], recognizer: "Recognizer", on_line: Callable[[bool], None]
) -> None:
    """`on_line` is called with whether a line could be read."""
    from ..bulk.parts import groups

    parts, read = run.parts(), reader_of(recognizer, run.batch_size, **run.asked)
    for part, sources in groups(places(run.paths, column=run.column), run.part_size):
        if part in done or not shard.holds(part):
            continue
        with parts.writing(part) as write:
            for source, line in read_sources(read, (source.loaded() for source in sources)):
                write(source.name, line)
                if isinstance(line, OcrError):
                    report_unreadable(source.name, line)
                on_line(not isinstance(line, OcrError))


def _read_here(run: Run, shard: Shard, done: frozenset[int], recognizer: "Recognizer", bar: "tqdm") -> tuple[int, int]:
    """The number of lines read, and how many of them were unreadable."""
    counts = [0, 0]

    def on_line(readable: bool) -> None:
        counts[0] += 1
        counts[1] += not readable
        bar.update()

    _read_parts(run, shard, done, recognizer, on_line)
    return counts[0], counts[1]


def _read_in_workers(run: Run, shard: Shard, done: frozenset[int], workers: int, bar: "tqdm") -> tuple[int, int]:
    """As `_read_here`, with processes that divide the parts of the shard among themselves."""
    context = multiprocessing.get_context("spawn")
    counts = context.Array("q", 2 * workers, lock=False)
    processes = [
        context.Process(target=_work, args=(run, own, done, counts, 2 * worker), daemon=True)
        for worker, own in enumerate(shard.split(workers))
    ]
    try:
        for process in processes:
            process.start()
        while alive := [process.sentinel for process in processes if process.is_alive()]:
            connection.wait(alive, _LOOK_SECONDS)
            bar.update(sum(counts[::2]) - bar.n + bar.initial)
    finally:
        for process in processes:
            process.terminate()
    ended = [process.exitcode for process in processes if process.exitcode]
    if ended:
        raise OutputError(
            f"{run.out}: {len(ended)} of {workers} workers ended early (exit code {', '.join(map(str, ended))}; -9 "
            "usually means that the system ran out of memory); the same command with --resume reads what is missing"
        )
    return sum(counts[::2]), sum(counts[1::2])


def _work(run: Run, shard: Shard, done: frozenset[int], counts: Any, at: int) -> None:
    """A worker: counts lines in counts[at], and unreadable ones in counts[at + 1]."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent, which receives it too, ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def on_line(readable: bool) -> None:
        counts[at] += 1
        counts[at + 1] += not readable

    try:
        _read_parts(run, shard, done, run.open(threads=1), on_line)
    except OcrError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


def _end_with_parent() -> None:
    """If the parent is killed, no worker goes on writing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
