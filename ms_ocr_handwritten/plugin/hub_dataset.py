"""Data sets of the hub whose archives hold an `lmdb/`, such as ICDAR13_HCTR_Dataset; usable offline once loaded.

ModelScope contacts the hub at every `MsDataset.load`, whatever its cache holds, and derives the folder names from the
hub's response. So the folders of each successful load are recorded in a file beside them, and used when the hub is
unavailable. Loading itself is left to ModelScope.
"""

import inspect
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelscope.msdatasets.dataset_cls.dataset import ExternalDataset
from modelscope.msdatasets.ms_dataset import MsDataset
from modelscope.utils.constant import DownloadMode, Hubs

from ..atomic import write_atomically
from ..errors import HubError
from .dataset import HUB_LMDB
from .hub import PATIENCE, PATIENCE_WITH_COPY, HubAway, ask_hub, modelscope_place, patience

CARDS = ("ICDAR13_HCTR_Dataset",)  # data sets of model cards, for which our errors apply from the first load on


def load(original: Callable, *args: Any, **kwargs: Any) -> Any:
    """`MsDataset.load` for a data set of the hub. Those neither in CARDS nor recorded fail as in ModelScope.

    Raises HubError: the hub is unavailable and nothing is recorded, it has no such data set, or a package is missing.
    """
    bound = inspect.signature(original).bind(*args, **kwargs)
    bound.apply_defaults()
    asked = bound.arguments
    name, namespace = asked["dataset_name"], asked["namespace"]
    if not isinstance(name, str) or os.path.exists(name) or Hubs(asked["hub"] or Hubs.modelscope) != Hubs.modelscope:
        return original(*args, **kwargs)
    if name.count("/") == 1:
        namespace, name = name.split("/")
    part = re.sub(r"\W", "_", f"{asked['subset_name'] or 'any'}-{asked['split'] or 'any'}")
    note = Path(asked["cache_dir"], str(namespace), name, str(asked["version"]), f"ms_ocr_{part}.json")
    if name not in CARDS and not note.exists():
        return _noted(original(*args, **kwargs), note)
    noted = _read_note(note)
    forced = DownloadMode(asked["download_mode"] or DownloadMode.REUSE_DATASET_IF_EXISTS) != (
        DownloadMode.REUSE_DATASET_IF_EXISTS
    )
    data_set, place = f"{namespace}/{name}", modelscope_place()
    try:
        status = ask_hub(place.endpoint, f"datasets/{data_set}", patience(PATIENCE_WITH_COPY if noted else PATIENCE))
    except HubAway as reason:
        if noted and not forced:
            return MsDataset.to_ms_dataset(ExternalDataset(noted, {}))
        raise HubError(
            f"data set {data_set}: {reason}, and "
            + ("download_mode asks for a new copy" if noted else f"it is not in ModelScope's cache, {place.cache}")
            + ". Connect and try again, or give lines of your own: MsDataset.load(..., local_lmdb='./local_lmdb')"
        ) from None
    if status == 404:
        raise HubError(f"data set {data_set}: no such data set on the hub at {place.endpoint}; check the name")
    try:
        return _noted(original(*args, **kwargs), note)
    except ModuleNotFoundError as error:
        raise HubError(
            f"data set {data_set}: ModelScope needs {error.name} to fetch it; `pip install 'modelscope[datasets]'`"
        ) from error


def _noted(data_set: Any, note: Path) -> Any:
    """The data set; its folders are recorded if each holds an LMDB."""
    folders = (getattr(data_set, "config_kwargs", None) or {}).get("split_config")
    if _all_hold_lmdbs(folders):
        write_atomically(note, json.dumps(folders).encode())
    return data_set


def _read_note(note: Path) -> dict[str, str] | None:
    """Folders by split, if they are recorded and still exist."""
    try:
        folders = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return None
    return folders if _all_hold_lmdbs(folders) else None


def _all_hold_lmdbs(folders: Any) -> bool:
    """Whether `folders` maps splits to folders that each hold an LMDB."""
    return isinstance(folders, dict) and all(
        isinstance(folder, str) and os.path.exists(os.path.join(folder, HUB_LMDB, "data.mdb"))
        for folder in folders.values() or [None]  # an empty mapping is not a data set
    )
