"""The examples in docstrings run, and every public name of the package and of its pure core has one."""

import doctest
import inspect
from importlib import import_module

import pytest

import ms_ocr_handwritten

CORE = ["ctc", "geometry", "image.canvas", "image.load", "metrics", "model_dir", "page.reader", "recognizer", "vocab"]
SHOWN_ELSEWHERE = {  # by the example of another name, which makes it
    *("Run", "LineCanvas", "Character", "Line", "Page", "PageLine", "PageCharacter", "ModelDir")
}


@pytest.fixture(params=CORE)
def module(request):
    return import_module(f"ms_ocr_handwritten.{request.param}")


def test_examples_give_what_they_say(module):
    failed, tried = doctest.testmod(module)
    assert (failed, tried > 0) == (0, True)


def test_every_public_name_has_an_example(module):
    with_example = [test.name for test in doctest.DocTestFinder().find(module) if test.examples]
    shown = {name.removeprefix(f"{module.__name__}.").split(".")[0] for name in with_example}
    own = {
        name
        for name, value in vars(module).items()
        if (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == module.__name__
    }
    assert {name for name in own if not name.startswith("_")} - shown - SHOWN_ELSEWHERE == set()


def test_all_names_of_the_package_are_among_them():
    names = set(ms_ocr_handwritten.__all__) - {"__version__"}
    homes = {getattr(ms_ocr_handwritten, name).__module__.removeprefix("ms_ocr_handwritten.") for name in names}
    assert homes <= {*CORE, "line"}
