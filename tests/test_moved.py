"""Modules that have moved are found under their former names, with a warning that says what they are called now."""

import importlib
import sys

import pytest

from ms_ocr_handwritten._moved import MOVED, PACKAGE


@pytest.mark.parametrize("former", sorted(MOVED))
def test_a_former_name_gives_the_very_module_and_a_warning(former):
    name = f"{PACKAGE}.{MOVED[former]}"
    sys.modules.pop(f"{PACKAGE}.{former}", None)
    with pytest.warns(DeprecationWarning, match=f"{PACKAGE}.{former} is called {name} now"):
        module = importlib.import_module(f"{PACKAGE}.{former}")
    assert module is importlib.import_module(name)


def test_other_names_are_not_found():
    with pytest.raises(ModuleNotFoundError, match="lmdb_gone"):
        importlib.import_module(f"{PACKAGE}.lmdb_gone")
