"""Imports go one way, from a higher layer to a lower one, and the lower layers know nothing of ModelScope."""

import ast
import fnmatch
from collections.abc import Iterator
from pathlib import Path

import pytest

import ms_ocr_handwritten

PACKAGE = Path(ms_ocr_handwritten.__file__).parent
LAYERS = [  # 0, 1, 2 ...: patterns of module names below the package
    [
        "_moved",
        "errors",
        "atomic",
        "files",
        "geometry",
        "config",
        "config_file",
        "config_section",
        "recognisers",
        "model_id",
    ],
    [
        "vocab",
        "image",
        "image.*",
        "ctc",
        "metrics",
        "lmdb",
        "lmdb.*",
        "data",
        "data.*",
        "decoding",
        "decoding.*",
        "line",
    ],
    ["nets", "nets.*", "model_dir", "onnx", "onnx.metadata", "onnx.inspection", "backends", "backends.*"],
    ["recognizer", "reading", "training", "training.*", "onnx.export", "onnx.int8"],
    ["synth", "synth.*", "page", "page.*", "report", "report.*", "ocrmypdf", "bulk", "bulk.*"],
    ["plugin", "plugin.*"],
    ["cli", "cli.*", "app", "app.*", "serve", "serve.*"],
]
PLUGIN = 5  # the layer that may import modelscope
TOP = "__init__"  # registers on import, and gives the public names when they are asked for
FORBIDDEN = ("modelscope", "transformers")  # below the plugin


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def layer(name: str) -> int:
    """The layer of a module; each belongs to one."""
    found = [index for index, patterns in enumerate(LAYERS) if any(fnmatch.fnmatch(name, one) for one in patterns)]
    assert len(found) == 1, f"{name}: in layers {found}; name it in LAYERS once"
    return found[0]


def imports(name: str) -> Iterator[tuple[str, bool]]:
    """What the module imports, own modules as names below the package; and whether it does so inside a function."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    is_package = MODULES[name].name == "__init__.py"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield node.module, id(node) in inside
                continue
            parents = [] if name == TOP else name.split(".")
            parents = parents[: len(parents) - node.level + is_package] if name != TOP else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                below = f"{base}.{alias.name}" if base else alias.name
                yield f"{PACKAGE.name}.{below if below in MODULES else base or TOP}", id(node) in inside


def own_imports(name: str) -> Iterator[tuple[str, bool]]:
    for imported, inside in imports(name):
        if imported.startswith(f"{PACKAGE.name}."):
            yield imported.removeprefix(f"{PACKAGE.name}."), inside


def test_every_module_has_a_place():
    assert len(MODULES) > 40
    assert {layer(name) for name in MODULES if name != TOP} == set(range(len(LAYERS)))


@pytest.mark.parametrize("name", sorted(set(MODULES) - {TOP}))
def test_imports_go_downwards(name):
    own = layer(name)
    for imported, _ in own_imports(name):
        if imported == TOP:  # version and public names, which only the top layer may ask for
            assert own == len(LAYERS) - 1, f"{name} imports the package itself"
            continue
        other = layer(imported)
        assert other <= own, f"{name} (layer {own}) imports {imported} (layer {other})"


def test_the_package_imports_nothing_but_the_registration():
    needed = [imported for imported, inside in own_imports(TOP)]
    assert "plugin.registration" in needed
    assert set(needed) <= {
        "_moved",
        "plugin.registration",
        "model_dir",
        "page.reader",
        "recognizer",
    }  # the latter for type checkers only
    assert not [imported for imported, inside in imports("plugin.registration") if imported.startswith("modelscope")]


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name != TOP and layer(name) != PLUGIN))
def test_only_the_plugin_knows_modelscope(name):
    assert not [one for one, _ in imports(name) if one.split(".")[0] in FORBIDDEN]


def test_the_reader_of_imports_sees_what_there_is():
    """The test's own oracle: the imports of one module, read by eye."""
    seen = dict(imports("plugin.model"))
    assert seen["modelscope.models.builder"] is False
    assert seen["ms_ocr_handwritten.nets.weights"] is False
    assert seen["ms_ocr_handwritten.plugin.building"] is False
    assert dict(imports("backends"))["ms_ocr_handwritten.nets.weights"] is True
