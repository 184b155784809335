"""Everything that touches ModelScope's internals: registers our classes under upstream's names, in any import order.

ModelScope looks up a class in two steps: `LazyImportModule.import_module(signature)` imports the module listed in its
index, which registers itself; then the registry is queried. Both steps are adapted:

- import_module: for a name of ours, our module is imported instead (upstream's may lack a dependency, and would
  collide).
- Registry._register_module: for a name of ours, a class of another package is set aside instead of registered, whoever
  imported it; `upstream_class` returns it, for comparisons.

`MsDataset.load`, `pipeline`, `build_trainer`, `from_pretrained` and `snapshot_download` contact the hub before they
reach a registered class, so these functions are wrapped. Each adaptation is made when the ModelScope module in question
is imported, by a finder that comes first in `sys.meta_path`, so importing this package imports no part of ModelScope.
Modules that were imported before are adapted at once and in place: `from modelscope.pipelines import pipeline` before
`import ms_ocr_handwritten` works as well as the other order.
"""

import functools
import importlib
import importlib.abc
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from ..model_id import answer_with

PACKAGE = __name__.rpartition(".")[0]
TASK = "ocr-recognition"
NAMED_AFTER = (TASK, "ocr-recognitoin")  # parts of official ids; LightweightEdge's id has this misspelling
PAGE_TASK = "ocr-page"  # whole pages; ModelScope has no task of that kind

# (registry, group, name) -> (our module, upstream's module, None if ModelScope has none)
NAMES: dict[tuple[str, str, str], tuple[str, str | None]] = {
    ("MODELS", TASK, "OCRRecognition"): (f"{PACKAGE}.model", "modelscope.models.cv.ocr_recognition.model"),
    ("PREPROCESSORS", "cv", "ocr-recognition"): (
        f"{PACKAGE}.preprocessor",
        "modelscope.models.cv.ocr_recognition.preprocessor",
    ),
    ("PIPELINES", TASK, "convnextTiny-ocr-recognition"): (
        f"{PACKAGE}.pipeline",
        "modelscope.pipelines.cv.ocr_recognition_pipeline",
    ),
    ("PIPELINES", PAGE_TASK, "convnextTiny-ocr-recognition"): (f"{PACKAGE}.page_pipeline", None),
    ("CUSTOM_DATASETS", TASK, "OCRRecognition"): (
        f"{PACKAGE}.dataset",
        "modelscope.msdatasets.dataset_cls.custom_datasets.ocr_recognition_dataset",
    ),
    ("TRAINERS", "default", "ocr-recognition"): (
        f"{PACKAGE}.trainer",
        "modelscope.trainers.cv.ocr_recognition_trainer",
    ),
    ("METRICS", "default", "ocr-recognition-metric"): (
        f"{PACKAGE}.metric",
        "modelscope.metrics.ocr_recognition_metric",
    ),
    ("EXPORTERS", TASK, "OCRRecognition"): (f"{PACKAGE}.exporter", "modelscope.exporters.cv.ocr_recognition_exporter"),
}

_upstream: dict[tuple[str, str, str], type] = {}


def upstream_class(registry: str, group: str, name: str) -> type:
    """ModelScope's own class of that name, imported if necessary. Raises ImportError if that fails."""
    key = (registry, group, name)
    if key not in _upstream:
        upstream = NAMES[key][1]
        if upstream is None:
            raise ImportError(f"ModelScope has no {name} of the task {group}")
        module = importlib.import_module(upstream)
        if key not in _upstream:  # imported before this package, so its registration was not seen
            _upstream[key] = next(
                value
                for value in vars(module).values()
                if isinstance(value, type)
                and value.__module__ == module.__name__
                and getattr(value, "group_key", None) == group
            )
    return _upstream[key]


def register() -> None:
    """Adapt ModelScope: modules imported already at once, the others when they are imported. Safe to call repeatedly.

    From then on the core resolves model ids as well.
    """
    answer_with(_resolved)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    for name, adapt in _ADAPTATIONS.items():
        if name in sys.modules:
            adapt(sys.modules[name])


def _adapt_imports(module: ModuleType) -> None:
    lazy = module.LazyImportModule

    @_once(lazy.import_module)
    def import_module(signature: tuple[str, str, str], original: Callable) -> None:
        if signature in NAMES:
            importlib.import_module(NAMES[signature][0])
        else:
            original(signature)

    lazy.import_module = staticmethod(import_module)


def _adapt_registry(module: ModuleType) -> None:
    registry = module.Registry

    @_once(registry._register_module)
    def _register_module(
        self: Any,
        group_key: Any = module.default_group,
        module_name: Any = None,
        module_cls: Any = None,
        force: bool = False,
        *,
        original: Callable,
    ) -> None:
        key = (self.name.upper(), group_key, module_name)
        if key not in NAMES:
            original(self, group_key, module_name, module_cls, force)
        elif module_cls.__module__ == NAMES[key][0]:
            present = self.get(module_name, group_key)
            if present is not None and present is not module_cls:  # upstream's, imported before this package
                _upstream[key] = present
            original(self, group_key, module_name, module_cls, force=True)
        else:
            _upstream[key] = module_cls
            module_cls.group_key = group_key

    registry._register_module = _register_module


def _adapt_datasets(module: ModuleType) -> None:
    dataset_class = module.MsDataset

    @_once(dataset_class.load)
    def load(*args: Any, original: Callable, **kwargs: Any) -> Any:
        if "local_lmdb" in kwargs or "local_file" in kwargs:
            return importlib.import_module(f"{PACKAGE}.dataset").load_local(*args, **kwargs)
        return importlib.import_module(f"{PACKAGE}.hub_dataset").load(original, *args, **kwargs)

    dataset_class.load = staticmethod(load)


def _adapt_pipelines(module: ModuleType) -> None:
    def resolve(arguments: dict[str, Any]) -> None:
        if arguments.get("task") == TASK:
            if arguments.get("model") is None:
                arguments["model"] = module.get_default_pipeline_info(TASK)[1]
            arguments["model"] = _resolved(arguments["model"], arguments.get("model_revision"))
        elif arguments.get("task") == PAGE_TASK:
            model = arguments.get("model") or _default_model_dir()
            arguments["model"] = _resolved(model, arguments.get("model_revision"))

    _wrap_in_place(module.pipeline, resolve)


def _adapt_trainers(module: ModuleType) -> None:
    def resolve(arguments: dict[str, Any]) -> None:
        given = arguments.get("default_args") or {}
        if arguments.get("name") == TASK and "model" in given:
            arguments["default_args"] = given | {"model": _resolved(given["model"], given.get("model_revision"))}

    _wrap_in_place(module.build_trainer, resolve)


def _adapt_from_pretrained(class_name: str, module: ModuleType) -> None:
    def resolve(arguments: dict[str, Any]) -> None:
        model = arguments["model_name_or_path"]  # an official id names the task; other ids are left to ModelScope
        if _is_official(os.fspath(model)) and not os.path.exists(model):
            arguments["model_name_or_path"] = _resolved(model, arguments.get("revision"))

    _wrap_in_place(getattr(module, class_name).from_pretrained.__func__, resolve)


def _adapt_snapshots(module: ModuleType) -> None:
    def resolve(arguments: dict[str, Any]) -> None:
        model = arguments.get("repo_id") or arguments.get("model_id")
        elsewhere = any(arguments.get(name) for name in ("local_files_only", "cache_dir", "local_dir", "endpoint"))
        if (
            isinstance(model, str)
            and _is_official(model)
            and arguments.get("repo_type") in (None, "model")
            and not elsewhere
        ):
            hub = importlib.import_module(f"{PACKAGE}.hub")
            arguments["local_files_only"] = hub.copy_to_take(model, arguments.get("revision")) is not None

    _wrap_in_place(module.snapshot_download, resolve)


def _adapt_checks(module: ModuleType) -> None:
    """Upstream's trainers ask the hub if a local directory is up to date, only to log it: minutes if it is offline."""

    def is_ours(arguments: dict[str, Any]) -> object:
        read_json = importlib.import_module("..config_file", __package__).read_json
        try:
            task = read_json(os.path.join(arguments["model_root_path"], "configuration.json")).get("task")
        except (TypeError, ValueError):  # not a directory, or no such file in it
            return None
        return SKIP if task == TASK else None

    _wrap_in_place(module.check_local_model_is_latest, is_ours)


def _is_official(model: str) -> bool:
    return any(name in model for name in NAMED_AFTER)


def _resolved(model: Any, revision: str | None) -> Any:
    """The directory of a path or an id (see hub.py); a loaded model or a list is returned unchanged."""
    if not isinstance(model, (str, os.PathLike)):
        return model
    return importlib.import_module(f"{PACKAGE}.hub").resolve_model(os.fspath(model), revision)


def _default_model_dir() -> str:
    return importlib.import_module("..model_dir", PACKAGE).default_model_dir()


def _wrap_in_place(function: FunctionType, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` edit the arguments of every call of `function`, under any name callers have imported it as.

    If it returns SKIP, the function is not called and the result is None.
    """
    if hasattr(function, _WRAPPED):
        return
    original = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    signature = inspect.signature(original)

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        if change(bound.arguments) is SKIP:
            return None
        return original(*bound.args, **bound.kwargs)

    def entry(*args: Any, _call: Callable = call, **kwargs: Any) -> Any:
        return _call(*args, **kwargs)

    function.__code__, function.__defaults__, function.__kwdefaults__ = entry.__code__, None, entry.__kwdefaults__
    function.__signature__ = signature  # type: ignore[attr-defined]  # typeshed omits it
    setattr(function, _WRAPPED, original)


def unwrapped(function: Callable) -> Callable:
    """ModelScope's original of a function that is wrapped in place."""
    return getattr(function, _WRAPPED, function)


def _once(original: Callable) -> Callable[[Callable], Callable]:
    """Wrap `original`, which the wrapper receives as a keyword; an already wrapped function is returned unchanged."""

    def decorate(wrapper: Callable) -> Callable:
        if hasattr(original, _WRAPPED):
            return original

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return wrapper(*args, original=original, **kwargs)

        setattr(wrapped, _WRAPPED, True)
        return wrapped

    return decorate


SKIP = object()
_WRAPPED = "_ms_ocr_handwritten"
_ADAPTATIONS: dict[str, Callable[[ModuleType], None]] = {
    "modelscope.utils.import_utils": _adapt_imports,
    "modelscope.utils.registry": _adapt_registry,
    "modelscope.hub.check_model": _adapt_checks,
    "modelscope.hub.snapshot_download": _adapt_snapshots,
    "modelscope.msdatasets.ms_dataset": _adapt_datasets,
    "modelscope.pipelines.builder": _adapt_pipelines,
    "modelscope.trainers.builder": _adapt_trainers,
    "modelscope.models.base.base_model": functools.partial(_adapt_from_pretrained, "Model"),
    "modelscope.preprocessors.base": functools.partial(_adapt_from_pretrained, "Preprocessor"),
}


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing itself: delegates to the other finders, and adapts the module once it is loaded."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name not in _ADAPTATIONS:
            return None
        for finder in sys.meta_path:
            if isinstance(finder, _Finder) or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                execute = functools.partial(_execute_and_adapt, spec.loader.exec_module)
                spec.loader.exec_module = execute  # type: ignore[method-assign]  # of this loader only, as is usual
                return spec
        return None


def _execute_and_adapt(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    execute(module)
    _ADAPTATIONS[module.__name__](module)
