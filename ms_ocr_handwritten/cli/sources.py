"""Expands the PATHs of a command to images, one at a time, keeping none: files, folders, patterns, URLs, lists of
these, LMDBs, Parquet files and WebDataset tar files.
"""

import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click

from ..errors import ImageError, OcrError
from ..files import current_folder

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # looked for in folders
LMDB_FILE = "data.mdb"
LABELS_FILE = "labels.tsv"
LIST_SUFFIX = ".txt"  # of a file that lists images, one per line
PARQUET_SUFFIX = ".parquet"
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
MACOS_FOLDER = "__MACOSX"  # holds thumbnails, in archives made on macOS

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Source:
    """One image: its display name, what `load_image` accepts (or the error instead), and its label if known."""

    name: str
    image: str | bytes | OcrError
    label: str = ""

    def loaded(self) -> "Source":
        return self


@dataclass(frozen=True)
class Place:
    """A Source that is not loaded yet, so that it can be skipped; load it before the next one is requested."""

    name: str
    load: Callable[[], str | bytes]

    def loaded(self) -> Source:
        """The source with its image, or with the reason why it cannot be loaded."""
        try:
            return Source(self.name, self.load())
        except OcrError as error:
            return Source(self.name, error)


def is_lmdb(path: str) -> bool:
    return os.path.isfile(os.path.join(path, LMDB_FILE))


def is_one_image(path: str) -> bool:
    """Whether `path` stands for at most one image: a file or a URL."""
    return bool(_URL.match(path)) or (os.path.isfile(path) and _holder(path) is None)


def expand(paths: tuple[str, ...], suffixes: tuple[str, ...] = IMAGE_SUFFIXES, column: str = "") -> Iterator[Source]:
    """The images of all paths, in order; a path without images yields a Source with the reason.

    Folders are searched for `suffixes`; `column` holds the images in Parquet files ('': one of the usual names).
    """
    for source in places(paths, suffixes, column):
        yield source.loaded()


def places(
    paths: tuple[str, ...], suffixes: tuple[str, ...] = IMAGE_SUFFIXES, column: str = ""
) -> Iterator[Source | Place]:
    """As `expand`, but images in container files are not loaded."""
    for path in paths:
        if _URL.match(path):
            yield file_source(path)
        elif os.path.isfile(path):
            holder = _holder(path)
            yield from holder.places(path, column) if holder else [file_source(path)]
        elif is_lmdb(path):
            yield from _lmdb_places(path)
        elif os.path.isdir(path):
            yield from _folder_sources(path, suffixes)
        else:
            yield from _glob_sources(path, suffixes, column)


def count(paths: tuple[str, ...]) -> int | None:
    """The number of sources `expand` will yield, without reading an image; None if only reading can tell."""
    sizes = [_size(path) for path in paths]
    return None if None in sizes else sum(filter(None, sizes))


def _size(path: str) -> int | None:
    if _URL.match(path):
        return 1
    if os.path.isfile(path):
        holder = _holder(path)
        return holder.size(path) if holder else 1
    if is_lmdb(path):
        return _lmdb_size(path)
    if os.path.isdir(path):
        return _folder_size(path)
    matches = glob.glob(path, recursive=True)
    return count(tuple(matches)) if matches else 1


def identify(paths: tuple[str, ...]) -> str:
    """A digest of the names of all sources; for container files, of their own names, sizes and modification times."""
    digest = hashlib.sha256()

    def add(*parts: object) -> None:
        digest.update("\0".join(map(str, (*parts, "\n"))).encode("utf-8", "surrogateescape"))

    def add_file(path: str) -> None:
        status = os.stat(path)
        add(path, status.st_size, status.st_mtime_ns)

    for path in paths:
        if os.path.isfile(path) and _holder(path):
            add_file(path)
        elif is_lmdb(path):
            add_file(os.path.join(path, LMDB_FILE))
        elif os.path.isdir(path):
            for source, hidden in _walk(path, IMAGE_SUFFIXES):
                add(source.name, hidden)
        elif not is_one_image(path) and (matches := sorted(glob.glob(path, recursive=True))):
            add(path, identify(tuple(matches)))
        else:
            add(path)
    return digest.hexdigest()


def file_source(path: str, label: str = "") -> Source:
    return Source(click.format_filename(path), path, label)


def lmdb_sources(path: str) -> Iterator[Source]:
    """The samples of an LMDB with their labels, named as by `_lmdb_places`."""
    from ..lmdb.store import LmdbReader

    reader = None
    for index, place in enumerate(_lmdb_places(path)):
        source = place.loaded()
        if not isinstance(source.image, OcrError):
            reader = reader or LmdbReader(path)
            try:
                source = replace(source, label=reader.label(index))
            except OcrError as error:
                source = Source(source.name, error)
        yield source


def _lmdb_places(path: str) -> Iterator[Source | Place]:
    """The images of an LMDB, named `path/key`; a record that cannot be read gives the reason in its place."""
    from ..lmdb.store import LmdbReader, image_key

    try:
        reader = LmdbReader(path)
        size = len(reader)
    except OcrError as error:
        yield Source(click.format_filename(path), error)
        return
    for index in range(size):
        yield Place(click.format_filename(os.path.join(path, image_key(index))), partial(reader.image_bytes, index))


def _lmdb_size(path: str) -> int:
    from ..lmdb.store import LmdbReader

    try:
        return len(LmdbReader(path))
    except OcrError:
        return 1  # the reason, which `lmdb_sources` yields


@dataclass(frozen=True)
class _Holder:
    """A kind of container file: its places, given the images' column, and the number of its images."""

    places: Callable[[str, str], Iterator[Source | Place]]
    size: Callable[[str], int | None]


def _holder(path: str) -> _Holder | None:
    """The kind of container file, by its name; None for a single image."""
    name = path.lower()
    if name.endswith(LIST_SUFFIX):
        return _Holder(_list_sources, lambda path: sum(1 for _ in _list_sources(path)))
    if name.endswith(PARQUET_SUFFIX):
        return _Holder(_parquet_places, _parquet_size)
    if name.endswith(TAR_SUFFIXES):
        return _Holder(_tar_places, lambda path: None)
    return None


def _list_sources(path: str, column: str = "") -> Iterator[Source]:
    """The images that a list names, one per line, relative to the working directory, like PATHs."""
    name = click.format_filename(path)
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as lines:
            yield from (file_source(line) for line in (line.rstrip("\r\n") for line in lines) if line)
    except OSError as error:
        yield Source(name, ImageError(f"{name}: the list cannot be read ({error.strerror}); check its permissions"))


def _parquet_places(path: str, column: str) -> Iterator[Source | Place]:
    """The rows of a Parquet file, named `path#row`, from 0."""
    from ..data.rows import read_images

    name = click.format_filename(path)
    try:
        for row, image in enumerate(read_images(Path(path), column)):
            yield Place(f"{name}#{row}", image)
    except OcrError as error:
        yield Source(name, error)


def _parquet_size(path: str) -> int:
    from ..data.record import ReadOptions
    from ..data.rows import count_parquet

    return count_parquet(Path(path), ReadOptions()) or 1


def _tar_places(path: str, column: str) -> Iterator[Source | Place]:
    """The images of a tar file, named `path/member`."""
    from ..data.webdataset import read_images

    name = click.format_filename(path)
    try:
        for member, image in read_images(Path(path)):
            yield Place(f"{name}/{member}", image)
    except OcrError as error:
        yield Source(name, error)


def _folder_sources(path: str, suffixes: tuple[str, ...]) -> Iterator[Source]:
    """All image files below a folder, in order of name; the number of hidden ones is reported on stderr."""
    name, found, hidden = click.format_filename(path), False, 0
    for source, is_hidden in _walk(path, suffixes):
        if is_hidden:
            hidden += 1
            continue
        found = True
        yield source
    if hidden:
        click.echo(f"{name}: {hidden} hidden image{'s' * (hidden > 1)} left out (such as .x.png, __MACOSX)", err=True)
    if not found:
        yield Source(
            name,
            ImageError(f"{name}: the folder holds no image ({', '.join(suffixes)}), and no {LMDB_FILE}; name another"),
        )


def _folder_size(path: str) -> int:
    """The number of sources that `_folder_sources` yields."""
    return sum(not hidden for _, hidden in _walk(path, IMAGE_SUFFIXES)) or 1


def _walk(folder: str, suffixes: tuple[str, ...], hidden: bool = False) -> Iterator[tuple[Source, bool]]:
    """The images below a folder, and whether each is hidden: left there by a file manager or an archiver."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        name = click.format_filename(folder)
        yield Source(name, ImageError(f"{name}: cannot be listed ({error.strerror}); check its permissions")), hidden
        return
    for entry in entries:
        here = hidden or entry.name.startswith(".") or entry.name == MACOS_FOLDER
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, suffixes, here)
        elif entry.name.lower().endswith(suffixes):
            yield file_source(entry.path), here


def _glob_sources(pattern: str, suffixes: tuple[str, ...], column: str) -> Iterator[Source | Place]:
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        name = click.format_filename(pattern)
        yield Source(
            name,
            ImageError(
                f"{name}: no such file or folder, and nothing matches it as a pattern "
                f"(looked in {click.format_filename(current_folder())}); check the path"
            ),
        )
    yield from places(tuple(matches), suffixes, column)
