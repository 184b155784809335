"""Former names of moved modules, which import the new ones with a DeprecationWarning until version 0.3."""

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

PACKAGE = __name__.rpartition(".")[0]
MOVED = {
    "lmdb_open": "lmdb.open",
    "lmdb_store": "lmdb.store",
    "lmdb_build": "lmdb.build",
    "lmdb_check": "lmdb.check",
    "export": "onnx.export",
    "quantize": "onnx.int8",
    "onnx_file": "onnx.metadata",
    "training.metrics": "metrics",
    "nets.ctc_loss": "training.ctc_loss",
    "nets.precision": "backends.precision",
    "synth.augment": "training.augment",
    "synth.paper": "training.paper",
    "image_file": "image.file",
    "image_structure": "image.structure",
    "limits": "image.limits",
    "source": "image.source",
    "download": "image.download",
    "margins": "image.margins",
    "loading": "image.loading",
    "straighten": "image.straighten",
}


class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the former names in MOVED and loads the modules under their new names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        former = fullname.removeprefix(f"{PACKAGE}.")
        return importlib.machinery.ModuleSpec(fullname, self) if former != fullname and former in MOVED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        former = module.__name__
        name = f"{PACKAGE}.{MOVED[former.removeprefix(f'{PACKAGE}.')]}"
        warnings.warn(f"{former} is called {name} now; the former name ends with version 0.3", DeprecationWarning, 2)
        sys.modules[former] = importlib.import_module(name)


def keep_former_names() -> None:
    """Make the former names importable; may be called repeatedly."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
