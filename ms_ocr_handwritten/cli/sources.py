"""From the PATHs of a command to images: files, folders, globs, LMDBs and URLs, one after the other, none held back."""

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import click

from ..errors import ImageError, OcrError
from ..files import current_folder

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # looked for in folders
LMDB_FILE = "data.mdb"
LABELS_FILE = "labels.tsv"
MACOS_FOLDER = "__MACOSX"  # of thumbnails, in archives made there

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Source:
    """One image: its name for people, what `load_image` takes (or why there is nothing), and its label if known."""

    name: str
    image: str | bytes | OcrError
    label: str = ""


def is_lmdb(path: str) -> bool:
    return os.path.isfile(os.path.join(path, LMDB_FILE))


def is_one_image(path: str) -> bool:
    """Whether `path` can name no more than one image: a file or a URL."""
    return bool(_URL.match(path)) or os.path.isfile(path)


def expand(paths: tuple[str, ...], suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> Iterator[Source]:
    """The images of all paths, in their order; a path that leads to none gives a Source with the reason.

    `suffixes` are those that folders are searched for.
    """
    for path in paths:
        if is_one_image(path):
            yield file_source(path)
        elif is_lmdb(path):
            yield from lmdb_sources(path)
        elif os.path.isdir(path):
            yield from _folder_sources(path, suffixes)
        else:
            yield from _glob_sources(path, suffixes)


def count(paths: tuple[str, ...]) -> int:
    """How many sources `expand` will give, without reading an image."""
    return sum(map(_size, paths))


def _size(path: str) -> int:
    if is_one_image(path):
        return 1
    if is_lmdb(path):
        return _lmdb_size(path)
    if os.path.isdir(path):
        return _folder_size(path)
    return sum(map(_size, glob.glob(path, recursive=True))) or 1


def file_source(path: str, label: str = "") -> Source:
    return Source(click.format_filename(path), path, label)


def lmdb_sources(path: str) -> Iterator[Source]:
    """The samples of an LMDB, named `path/key`; a record that cannot be had gives the reason in its place."""
    from ..lmdb.store import LmdbReader, image_key

    try:
        reader = LmdbReader(path)
        size = len(reader)
    except OcrError as error:
        yield Source(click.format_filename(path), error)
        return
    for index in range(size):
        name = click.format_filename(os.path.join(path, image_key(index)))
        try:
            image, label = reader.read(index)
        except OcrError as error:
            yield Source(name, error)
        else:
            yield Source(name, image, label)


def _lmdb_size(path: str) -> int:
    from ..lmdb.store import LmdbReader

    try:
        return len(LmdbReader(path))
    except OcrError:
        return 1  # the reason, which `lmdb_sources` gives


def _folder_sources(path: str, suffixes: tuple[str, ...]) -> Iterator[Source]:
    """All image files below a folder, in order of name; hidden ones are counted on stderr."""
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
    """As many as `_folder_sources` gives."""
    return sum(not hidden for _, hidden in _walk(path, IMAGE_SUFFIXES)) or 1


def _walk(folder: str, suffixes: tuple[str, ...], hidden: bool = False) -> Iterator[tuple[Source, bool]]:
    """The images below a folder, and whether each is hidden: what a file manager or an archiver left there."""
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


def _glob_sources(pattern: str, suffixes: tuple[str, ...]) -> Iterator[Source]:
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
    yield from expand(tuple(matches), suffixes)
