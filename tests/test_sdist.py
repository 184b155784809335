"""The sdist holds what the tests need, and they run from it."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

PARTS = ("tests", "examples", "recipe", "benchmarks", "docs", "ms_ocr_handwritten")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The folder of an sdist, built from a copy, since building writes beside setup.py."""
    folder = tmp_path_factory.mktemp("sdist")
    source = folder / "source"
    source.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
        elif path.name in PARTS:
            shutil.copytree(path, source / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(folder)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    shutil.unpack_archive(next(folder.glob("*.tar.gz")), folder / "unpacked")  # our own: no filter, new in 3.11.4
    return source, next((folder / "unpacked").iterdir())


def test_it_holds_every_file_of_the_parts(unpacked):
    source, sdist = unpacked
    names = {str(path.relative_to(source)) for part in PARTS for path in (source / part).rglob("*") if path.is_file()}
    assert len(names) > 150
    assert [name for name in sorted(names) if not (sdist / name).is_file()] == []
    assert all((sdist / name).is_file() for name in ("SECURITY.md", "configuration.json", "LICENSE", "NOTICE"))


def test_tests_run_from_it(unpacked):
    _, sdist = unpacked
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_ctc.py", "tests/test_layers.py"],
        cwd=sdist,
        env=os.environ | {"PYTHONPATH": str(sdist)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-2000:]
    assert "passed" in run.stdout or "[100%]" in run.stdout
