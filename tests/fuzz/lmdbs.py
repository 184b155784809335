"""LMDBs: damaged pages, wrong counts, keys and values that lie; read by all who read LMDBs."""

import contextlib
import os
import random
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import lmdb

from ms_ocr_handwritten.errors import OcrError
from ms_ocr_handwritten.lmdb.check import inspect_lmdb, validate_lmdb
from ms_ocr_handwritten.lmdb.store import LmdbReader
from ms_ocr_handwritten.vocab import Vocabulary

from .case import READ, REFUSED, Case
from .images import POSTSCRIPT, encoded, iptc, picture
from .mutate import EXTREMES, mutated

PAGE = 4096
LINE = encoded(picture(), "PNG")
VOCABULARY = Vocabulary(tuple("abc"))


def stored(records: dict[bytes, bytes]) -> bytes:
    """The data.mdb that holds `records`."""
    with tempfile.TemporaryDirectory() as folder:
        with lmdb.open(folder, map_size=2**26, lock=False) as environment, environment.begin(write=True) as transaction:
            for key, value in records.items():
                transaction.put(key, value)
        return Path(folder, "data.mdb").read_bytes()


def lines(count: int, image: bytes = LINE, **changes: bytes) -> dict[bytes, bytes]:
    records = {b"num-samples": str(count).encode()}
    for number in range(1, count + 1):
        records[b"image-%09d" % number], records[b"label-%09d" % number] = image, b"abc"
    return records | {name.replace("_", "-").encode(): value for name, value in changes.items()}


SEEDS: list[tuple[str, Callable[[], bytes], str | None]] = [
    ("sound", lambda: stored(lines(6)), READ),
    ("of many pages", lambda: stored(lines(400)), READ),
    ("of large values", lambda: stored(lines(6, image=LINE + bytes(20_000))), READ),
    ("empty", lambda: stored({}), REFUSED),
    ("no file", lambda: b"", REFUSED),
    ("no LMDB", lambda: b"data" * 5000, REFUSED),
    ("no count", lambda: stored(lines(3) | {b"num-samples": b""}), REFUSED),
    ("count of 10^18", lambda: stored(lines(3, num_samples=b"1" + b"0" * 18)), REFUSED),
    ("count of 5000 digits", lambda: stored(lines(3, num_samples=b"9" * 5000)), REFUSED),
    ("negative count", lambda: stored(lines(3, num_samples=b"-1")), REFUSED),
    ("a sample of number 10^18", lambda: stored(lines(3, **{"image-" + "9" * 18: LINE})), READ),
    ("labels of megabytes", lambda: stored(lines(3, label_000000002=b"a" * 2**22)), READ),
    ("labels that are not UTF-8", lambda: stored(lines(3, label_000000002=b"\xff\xfe")), READ),
    ("images that are Ghostscript's", lambda: stored(lines(3, image=iptc(POSTSCRIPT))), READ),
    ("entries of 2^60", lambda: with_field(lines(3), 0x88, (2**60).to_bytes(8, "little")), None),
    ("a root beyond the file", lambda: with_field(lines(3), 0x90, (2**40).to_bytes(8, "little")), None),
    ("a depth of 60000", lambda: with_field(lines(3), 0x6E, (60_000).to_bytes(2, "little")), None),
    ("truncated", lambda: stored(lines(400))[: 20 * PAGE], REFUSED),
]


def with_field(records: dict[bytes, bytes], offset: int, value: bytes) -> bytes:
    """An LMDB with `value` at `offset` of both of its meta pages."""
    content = bytearray(stored(records))
    for page in (0, PAGE):
        content[page + offset : page + offset + len(value)] = value
    return bytes(content)


@lru_cache(maxsize=1)
def _contents() -> list[bytes]:
    return [SEEDS[index][1]() for index in (0, 1, 2)]


def _damaged(chance: random.Random) -> bytes:
    """A sound LMDB with a few fields of its pages' headers changed, where lmdb itself trusts them."""
    content = bytearray(chance.choice(_contents()))
    for _ in range(chance.randint(1, 4)):
        page = PAGE * chance.randrange(len(content) // PAGE)
        place = page + chance.choice((chance.randrange(16, 160), chance.randrange(16), chance.randrange(PAGE)))
        size = chance.choice((1, 2, 4, 8))
        value = chance.choice((*EXTREMES, chance.randrange(2**16)))
        content[place : place + size] = (value & (256**size - 1)).to_bytes(size, "little")
    if chance.random() < 0.3:
        return mutated(chance, bytes(content), _contents())
    return bytes(content)


def _attempt(path: Path) -> None:
    """Validate it, whatever is wrong; read all of it, up to the first error that is ours."""
    report = None
    with contextlib.suppress(OcrError):
        report = validate_lmdb(path, VOCABULARY)
    if report is not None and any(problem.kind == "damaged" for problem in report.problems):
        report.problems[0].detail.encode("utf-8", "surrogatepass")
    reader = LmdbReader(path)
    for index in range(min(len(reader), 1000)):
        with contextlib.suppress(OcrError):
            reader.read(index)
    inspect_lmdb(path)


def case(number: int, folder: Path) -> Case:
    if number < len(SEEDS):
        name, build, expected = SEEDS[number]
        content = build()
    else:
        name, content, expected = "damaged", _damaged(random.Random(number)), None
    path = folder / "lines"
    os.mkdir(path)
    (path / "data.mdb").write_bytes(content)
    return Case(name, lambda: _attempt(path), expected)
