"""WebDataset: tar files in which the members of a sample are adjacent and share their name up to the first dot.

0001.png 0001.txt 0002.png 0002.txt ...    the text in .txt, .text, .label, .gt or .gt.txt, or in .json ({"text": ...})
"""

import json
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import DataError
from .record import BadRecord, Columns, ReadOptions, Record, Records
from .table import IMAGE_SUFFIXES

SUFFIXES = (".tar", ".tar.gz", ".tgz")
_TEXTS = (".txt", ".text", ".label", ".gt", ".gt.txt")
_JSON = ".json"
_READ = frozenset((*IMAGE_SUFFIXES, *_TEXTS, _JSON))
_LARGEST = 64 * 1024 * 1024  # bytes per member


class _TooLargeError(DataError):
    """A member exceeds the size limit; later members can still be read."""


def files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.name.lower().endswith(SUFFIXES))


def read(path: Path, options: ReadOptions) -> Records:
    """The samples of all shards, in order; a truncated shard yields the samples before the fault, then a BadRecord."""
    base = path if path.is_dir() else path.parent
    for file in files(path):
        members: dict[str, bytes | _TooLargeError] = {}
        name = ""
        try:
            for stem, suffix, content_of in _members(file):
                if stem != name and members:
                    yield _sample(file, base, name, members, options)
                    members = {}
                name = stem
                members[suffix] = _content_or_fault(content_of) if suffix in _READ else b""
        except (tarfile.TarError, OSError, EOFError, DataError) as error:
            yield BadRecord(str(file), _damaged(file, name, error))
            continue  # the sample at the fault may be incomplete
        if members:
            yield _sample(file, base, name, members, options)


def read_images(file: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name and content of each image in a tar file, with or without a text; read each content before the next name.

    Raises DataError if the file is truncated or damaged, after the images before the fault.
    """
    name = ""
    try:
        for stem, suffix, content_of in _members(file):
            if suffix in IMAGE_SUFFIXES:
                name = stem + suffix
                yield name, content_of
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _damaged(file, name, error) from error


def _damaged(file: Path, name: str, error: Exception) -> DataError:
    return DataError(f"{file}: truncated or damaged after {name or 'its beginning'!r} ({error})")


def _members(file: Path) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """(name up to the first dot, the rest in lower case, a function that reads the content) of the archive's files."""
    with tarfile.open(file, "r|*") as archive:
        for member in archive:
            if not member.isfile():
                continue
            folder, slash, last = member.name.rpartition("/")
            stem, dot, suffix = last.partition(".")
            yield folder + slash + stem, (dot + suffix).lower(), partial(_content, archive, member)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > _LARGEST:
        raise _TooLargeError(f"{member.name} has {member.size} bytes, over the limit of {_LARGEST}")
    try:
        file = archive.extractfile(member)
        content = b"" if file is None else file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{member.name}: cannot be read, the file is truncated or damaged ({error})") from error
    if len(content) != member.size:
        raise DataError(f"{member.name}: {len(content)} bytes of {member.size} are there, the file ends")
    return content


def _content_or_fault(content_of: Callable[[], bytes]) -> "bytes | _TooLargeError":
    """The content, or the error: a member that is too large only costs its own sample."""
    try:
        return content_of()
    except _TooLargeError as error:
        return error


def _sample(
    file: Path, base: Path, name: str, contents: "dict[str, bytes | _TooLargeError]", options: ReadOptions
) -> Record | BadRecord:
    where = f"{file}: {name}"
    members: dict[str, bytes] = {}
    for suffix, content in contents.items():
        if isinstance(content, _TooLargeError):
            return BadRecord(where, DataError(f"{file}: {content}; make it smaller"))
        members[suffix] = content
    found: dict[str, Any] = {}
    try:
        if _JSON in members:
            found = json.loads(members[_JSON])
        image = next((members[one] for one in IMAGE_SUFFIXES if one in members), None)
        text = next((members[one].decode("utf-8") for one in _TEXTS if one in members), None)
    except (ValueError, RecursionError) as error:
        return BadRecord(where, DataError(f"{where}: its text is not UTF-8, or its .json is not JSON ({error})"))
    found = found if isinstance(found, dict) else {}
    text = _among(found, "text", options.columns) if text is None or options.columns.text else text
    if image is None or text is None:
        missing = "image" if image is None else "text"
        remedy = "the files of a sample must follow each other: pack with `tar --sort=name`"
        return BadRecord(where, DataError(f"{where}: no {missing} among {', '.join(members)}; {remedy}"))
    return Record(
        where=where,
        text=text.removesuffix("\n").removesuffix("\r"),
        image=image,
        source=f"{file.relative_to(base).as_posix()}/{name}",
        writer=_among(found, "writer", options.columns) or "",
        page=_among(found, "page", options.columns) or "",
    )


def _among(found: dict[str, Any], kind: str, columns: Columns) -> str | None:
    asked = getattr(columns, kind)
    for name in [asked] if asked else Columns.USUAL[kind]:
        if isinstance(found.get(name), (str, int, float)):
            return str(found[name])
    return None
