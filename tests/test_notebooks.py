"""The notebooks run as they stand, without the network, and are stored without what a machine made of them."""

import json
import os
import shutil

import pytest
from conftest import ROOT
from fresh import PREAMBLE, TESTS

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOKS = ROOT / "examples" / "notebooks"
GUARD = "import sys\nsys.argv = ['', '{}']\n" + PREAMBLE
# What each must have come to; the last cell that is run.
CHECKS = {
    "card.ipynb": """
assert result["text"] == from_array["text"] == ["今天天气很好"]
assert scores["lines"] == 8 and 0 <= scores["cer"] < 1
assert tuned(picture)["text"][0]
assert Path(exported["model"]).stat().st_size > 1_000_000
""",
    "fine_tuning.ipynb": """
assert report.written == 4 and faults.ok
assert scores["lines"] == 4 and scores["cer"] == after <= before
assert [row.split("\\t")[0] for row in rows] == [f"test_{index}.png" for index in range(4)]
""",
    "report.ipynb": """
assert "held_out" in done.stdout and " 12 " in done.stdout
page = Path("report/index.html").read_text(encoding="utf-8")
assert "<html" in page and "CER" in page
""",
}


def test_each_has_its_check():
    assert {path.name for path in NOTEBOOKS.glob("*.ipynb")} == set(CHECKS)


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_it_is_stored_without_outputs_in_two_languages(name):
    notebook = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    texts = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    assert all(any("\u4e00" <= character <= "\u9fff" for character in text) for text in texts)
    assert notebook["metadata"]["language_info"] == {"name": "python"}  # no version of anybody's machine


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_it_runs_offline(name, tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copytree(ROOT / "examples" / "lines", tmp_path / "lines")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(TESTS)]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(GUARD))
    notebook.cells.append(nbformat.v4.new_code_cell(CHECKS[name] + "assert ATTEMPTS == []"))
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
