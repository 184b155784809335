"""The examples run as they stand, one after the other, without the network."""

from pathlib import Path
from xml.etree import ElementTree

from conftest import ALPHABET, ROOT, TINY_NETWORK, make_model_dir, png, render
from fresh import fresh
from PIL import ImageFont

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.lmdb.store import LmdbReader

EXAMPLES = ROOT / "examples"
RUN = """
import contextlib, io, runpy
printed = []
for name, *arguments in VALUES["runs"]:
    sys.argv = [name, *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        runpy.run_path(os.path.join(VALUES["examples"], name), run_name="__main__")
    printed.append(output.getvalue())
answer(printed=printed)
"""


def test_examples_run_in_order(tmp_path, lines_lmdb, served):
    model = make_model_dir(tmp_path / "model", ALPHABET, scale=3.0, **TINY_NETWORK)
    line = tmp_path / "line.png"
    line.write_bytes(png(render("b4d")))
    font = tmp_path / "font.ttf"
    font.write_bytes(ImageFont.load_default(20).font_bytes)
    first = Recognizer.from_pretrained(model).read(line)
    runs = [
        ["recognize.py", str(line), "--model", str(model)],
        ["recognize.py", f"{served}/line.png", "--model", str(model)],
        ["finetune.py", str(model), str(lines_lmdb), "--epochs", "2"],
        ["reload.py", str(line), "--epoch", "1"],
        ["onnx_inference.py", "./work_dir/output", str(line)],
        ["new_hand.py", str(font), "hand", "--lines", "5", "--held-out", "2"],
        ["confidences.py", str(line), "line.svg", "--model", str(model)],
    ]
    elsewhere = {"card.py", "modelscope_server.py"}  # test_hub.py and test_hub_doors.py run these
    assert {run[0] for run in runs} == {path.name for path in Path(EXAMPLES).glob("*.py")} - elsewhere
    got = fresh(RUN, tmp_path, examples=EXAMPLES, runs=runs)
    assert got["attempts"] == []

    by_path, by_url, scores, reloaded, by_onnx, drawn, shown = got["printed"]
    assert by_path == by_url
    assert by_path.splitlines()[0] == f"{first.text} {first.score:.3f}"
    assert len(by_path.splitlines()) == 1 + len(first.chars)
    assert "'lines': 48" in scores and "'cer':" in scores
    tuned = Recognizer.from_pretrained(tmp_path / "work_dir" / "output").read(line)
    assert tuned.text
    assert reloaded == by_onnx == tuned.text + "\n"
    assert sorted(path.name for path in (tmp_path / "work_dir" / "output").iterdir()) == [
        "configuration.json",
        "model.onnx",
        "pytorch_model.pt",
        "vocab.txt",
    ]
    assert drawn == f"{Path('hand/train')}: 5 lines\n{Path('hand/test')}: 2 lines\n"
    assert shown == f"{first.text} {first.score:.3f}\n"
    letters = ElementTree.parse(tmp_path / "line.svg").findall("{http://www.w3.org/2000/svg}text")
    assert [letter.text for letter in letters] == [char.character for char in first.chars]
    words = set((Path(EXAMPLES).parent / "LICENSE").read_text(encoding="utf-8").split())
    reader = LmdbReader(tmp_path / "hand" / "train")
    assert all(word in words for index in range(5) for word in reader.label(index).split()[:-1])  # the last may be cut
