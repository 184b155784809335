"""Local LMDBs as ModelScope data sets: `MsDataset.load(..., local_lmdb=...)`, without contacting the hub."""

import copy
import inspect
import math
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from modelscope.msdatasets.dataset_cls.custom_datasets.builder import CUSTOM_DATASETS
from modelscope.msdatasets.dataset_cls.custom_datasets.torch_custom_dataset import TorchCustomDataset
from modelscope.msdatasets.ms_dataset import MsDataset
from PIL import Image

from ..data.reader import LineReader, SelectedLines
from ..errors import ConfigurationError
from ..image import load_image
from ..lmdb.store import LmdbReader
from ..vocab import fold_full_width

if TYPE_CHECKING:
    import datasets

HUB_LMDB = "lmdb"  # the folder that holds the LMDB in a data set of the hub

Indices = list[int] | tuple[int, ...] | range | np.ndarray
Paths = str | os.PathLike | Sequence[str | os.PathLike]


class LocalLmdbDataset(MsDataset):
    """The lines of one or more LMDBs, or a selection of them; records are {'image': encoded bytes, 'label': str}.

    Slices, columns, `select`, `shuffle` and `train_test_split` behave as for a `datasets.Dataset`. Nothing is copied: a
    selection reads from the same LMDBs.
    """

    column_names = ("image", "label")

    def __init__(self, paths: Paths) -> None:
        paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        if not paths:
            raise ConfigurationError("local_lmdb names no LMDB; give a path or a list of paths")
        self.paths = [os.fspath(path) for path in paths]
        self._readers: list[LineReader] = [LmdbReader(path) for path in self.paths]
        super().__init__(self)

    def line_readers(self) -> list[LineReader]:
        """The readers of the lines, in order: one LmdbReader per LMDB, or a single reader of a selection."""
        return self._readers

    def __len__(self) -> int:
        return sum(map(len, self._readers))

    def __getitem__(self, key: SupportsIndex | slice | str | Indices) -> Any:
        """A record; lists for a slice, a list of indices or a column name. Raises LmdbError, with path and key."""
        if isinstance(key, str):
            if key not in self.column_names:
                raise KeyError(f"{key}: no such column; available: {', '.join(self.column_names)}")
            return [self._value(index, key) for index in range(len(self))]
        if isinstance(key, (slice, list, tuple, range, np.ndarray)):
            indices = self._indices(key)
            return {name: [self._value(index, name) for index in indices] for name in self.column_names}
        index = range(len(self))[operator.index(key)]
        return {name: self._value(index, name) for name in self.column_names}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def select(self, indices: Iterable[int]) -> "LocalLmdbDataset":
        """The lines at `indices`, in that order. Raises IndexError."""
        return self._selection(self._indices(list(indices)))

    def shuffle(self, seed: int | None = None) -> "LocalLmdbDataset":
        """All lines in random order; the same seed gives the same order."""
        return self._selection(np.random.default_rng(seed).permutation(len(self)))

    def train_test_split(
        self,
        test_size: float | int | None = None,
        train_size: float | int | None = None,
        shuffle: bool = True,
        seed: int | None = None,
    ) -> "dict[str, LocalLmdbDataset]":
        """{"train": ..., "test": ...}; a size is a share or a number of lines [test: the remainder, else 0.25].

        To keep writers or pages out of both parts, see `ms-ocr lmdb split`. Raises ConfigurationError.
        """
        train, test = self._sizes(train_size, test_size)
        order = np.random.default_rng(seed).permutation(len(self)) if shuffle else np.arange(len(self))
        return {"train": self._selection(order[:train]), "test": self._selection(order[len(order) - test :])}

    def _sizes(self, train_size: float | int | None, test_size: float | int | None) -> tuple[int, int]:
        """Numbers of training and test lines; shares are rounded as in scikit-learn and `datasets`."""
        lines = len(self)
        if test_size is None:
            test_size = 0.25 if train_size is None else lines - self._number(train_size, math.floor)
        test = self._number(test_size, math.ceil)
        train = lines - test if train_size is None else self._number(train_size, math.floor)
        if train < 1 or test < 1 or train + test > lines:
            raise ConfigurationError(
                f"train_size={train_size}, test_size={test_size} of {lines} lines are {train} and {test}; give shares "
                "below 1 or numbers of lines that leave some for both"
            )
        return train, test

    def _number(self, size: float | int, rounded: Callable[[float], int]) -> int:
        return size if isinstance(size, int) else rounded(size * len(self))

    def _selection(self, indices: Sequence[int] | np.ndarray) -> "LocalLmdbDataset":
        selection = copy.copy(self)
        selection._readers = [SelectedLines(self._readers, indices)]
        selection._hf_ds = selection
        return selection

    def _indices(self, key: Any) -> list[int]:
        there = range(len(self))
        return list(there[key]) if isinstance(key, slice) else [there[int(index)] for index in key]

    def _value(self, index: int, column: str) -> Any:
        for reader in self._readers:
            if index < len(reader):
                return reader.image_bytes(index) if column == "image" else reader.label(index)
            index -= len(reader)
        raise IndexError(index)

    def to_hf_dataset(self) -> "datasets.Dataset":
        """The lines as a `datasets.Dataset` with columns image and label, copied to that library's cache."""
        import datasets

        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
        return datasets.Dataset.from_generator(self.__iter__, features)

    def to_custom_dataset(
        self, custom_cfg: Any, preprocessor: Any = None, mode: str | None = None, **kwargs: Any
    ) -> None:
        """Called by ModelScope's own trainers: make `ds_instance` the object they iterate over."""
        self._hf_ds = OCRRecognitionDataset(self, preprocessor)
        self.is_custom = True


@CUSTOM_DATASETS.register_module("ocr-recognition", module_name="OCRRecognition")
class OCRRecognitionDataset(TorchCustomDataset):
    """Upstream's records: {'images': the preprocessor's output for the grey image, 'labels': folded label}."""

    def __init__(
        self,
        local_lmdb: "Paths | LocalLmdbDataset | None" = None,
        preprocessor: Any = None,
        split_config: Mapping[str, str] | None = None,
        mode: str | None = None,
    ) -> None:
        """local_lmdb, or split_config of a data set of the hub: folders by split, each with an `lmdb/`. `mode`, passed
        by upstream, has no effect. Raises ConfigurationError or LmdbError."""
        if local_lmdb is None:
            local_lmdb = hub_lmdbs(split_config or {})
        self._inner_dataset = local_lmdb if isinstance(local_lmdb, LocalLmdbDataset) else LocalLmdbDataset(local_lmdb)
        self.preprocessor, self.trainer = preprocessor, None

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._inner_dataset[index]
        image = Image.fromarray(load_image(record["image"])).convert("L")
        return {
            "images": self.preprocessor(image)["image"] if self.preprocessor else image,
            "labels": fold_full_width(record["label"]),
        }


def hub_lmdbs(split_config: Mapping[str, str]) -> list[str]:
    """The LMDBs of a data set of the hub, whose `config_kwargs` maps splits to folders."""
    return [os.path.join(folder, HUB_LMDB) for folder in split_config.values()]


def load_local(
    *args: Any, local_lmdb: Paths | None = None, local_file: Paths | None = None, **kwargs: Any
) -> LocalLmdbDataset:
    """`MsDataset.load` with `local_lmdb` (or `local_file`, as in an older model card): loads only the local data.

    The other arguments of `MsDataset.load` (dataset_name, namespace, split ...) locate metadata on the hub, which is
    not needed here. Raises ConfigurationError for unknown arguments, and LmdbError if a path is not an LMDB.
    """
    allowed = inspect.signature(MsDataset.load).parameters
    if unknown := sorted(kwargs.keys() - allowed.keys()):
        raise ConfigurationError(
            f"unknown argument {', '.join(unknown)}; allowed here: local_lmdb, local_file, and "
            f"those of MsDataset.load: {', '.join(allowed)}"
        )
    given = [paths for paths in (local_lmdb, local_file) if paths is not None]
    if len(given) != 1:
        raise ConfigurationError("give either local_lmdb or local_file: a path, or a list of paths, of LMDBs")
    return LocalLmdbDataset(given[0])
