"""Local LMDBs as ModelScope data sets: `MsDataset.load(..., local_lmdb=...)`, without asking the hub."""

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelscope.msdatasets.dataset_cls.custom_datasets.builder import CUSTOM_DATASETS
from modelscope.msdatasets.dataset_cls.custom_datasets.torch_custom_dataset import TorchCustomDataset
from modelscope.msdatasets.ms_dataset import MsDataset
from PIL import Image

from ..errors import ConfigurationError
from ..image import load_image
from ..lmdb.store import LmdbReader
from ..vocab import fold_full_width

HUB_LMDB = "lmdb"  # the folder of a data set of the hub that holds its LMDB

Paths = str | os.PathLike | Sequence[str | os.PathLike]


class LocalLmdbDataset(MsDataset):
    """Lines of one or several LMDBs; records are {'image': encoded bytes, 'label': str}."""

    def __init__(self, paths: Paths) -> None:
        paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        if not paths:
            raise ConfigurationError("local_lmdb names no LMDB; give a path or a list of paths")
        self.paths = [os.fspath(path) for path in paths]
        self.readers = [LmdbReader(path) for path in self.paths]
        super().__init__(self)

    def __len__(self) -> int:
        return sum(map(len, self.readers))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises LmdbError, with path and key, for a broken record."""
        position = range(len(self))[index]
        for reader in self.readers:
            if position < len(reader):
                image, label = reader.read(position)
                return {"image": image, "label": label}
            position -= len(reader)
        raise IndexError(index)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def to_custom_dataset(
        self, custom_cfg: Any, preprocessor: Any = None, mode: str | None = None, **kwargs: Any
    ) -> None:
        """Called by upstream's trainers (CRNN, LightweightEdge): make `ds_instance` what they iterate over."""
        self._hf_ds = OCRRecognitionDataset(self.paths, preprocessor)
        self.is_custom = True


@CUSTOM_DATASETS.register_module("ocr-recognition", module_name="OCRRecognition")
class OCRRecognitionDataset(TorchCustomDataset):
    """Upstream's records: {'images': what the preprocessor makes of the grey image, 'labels': folded label}."""

    def __init__(
        self,
        local_lmdb: Paths | None = None,
        preprocessor: Any = None,
        split_config: Mapping[str, str] | None = None,
        mode: str | None = None,
    ) -> None:
        """local_lmdb, or split_config of a data set of the hub: folders by split, each of which holds an `lmdb/`. mode,
        which upstream passes, changes nothing. Raises ConfigurationError or LmdbError."""
        if local_lmdb is None:
            local_lmdb = hub_lmdbs(split_config or {})
        self._inner_dataset = LocalLmdbDataset(local_lmdb)
        self.preprocessor, self.trainer = preprocessor, None

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._inner_dataset[index]
        image = Image.fromarray(load_image(record["image"])).convert("L")
        return {
            "images": self.preprocessor(image)["image"] if self.preprocessor else image,
            "labels": fold_full_width(record["label"]),
        }


def hub_lmdbs(split_config: Mapping[str, str]) -> list[str]:
    """The LMDBs of a data set of the hub, whose `config_kwargs` holds folders by split."""
    return [os.path.join(folder, HUB_LMDB) for folder in split_config.values()]


def load_local(
    *args: Any, local_lmdb: Paths | None = None, local_file: Paths | None = None, **kwargs: Any
) -> LocalLmdbDataset:
    """`MsDataset.load` with `local_lmdb` (or, as an older card has it, `local_file`): the local data and nothing else.

    The other arguments of `MsDataset.load` (dataset_name, namespace, split ...) say where on the hub the metadata would
    be, which is not needed. Raises ConfigurationError for unknown ones, and LmdbError where a path is no LMDB.
    """
    allowed = inspect.signature(MsDataset.load).parameters
    if unknown := sorted(kwargs.keys() - allowed.keys()):
        raise ConfigurationError(
            f"unknown argument {', '.join(unknown)}; allowed here: local_lmdb, local_file, and "
            f"those of MsDataset.load: {', '.join(allowed)}"
        )
    if (local_lmdb is None) == (local_file is None):
        raise ConfigurationError("give either local_lmdb or local_file: a path, or a list of paths, of LMDBs")
    return LocalLmdbDataset(local_lmdb if local_lmdb is not None else local_file)
