"""What `validate_lmdb` finds, kind by kind, and what `inspect_lmdb` sums up."""

import io
import unicodedata
from pathlib import Path

import lmdb
import pytest
from PIL import Image

from ms_ocr_handwritten.errors import LmdbError
from ms_ocr_handwritten.lmdb.check import Problem, Spread, inspect_lmdb, line_columns, validate_lmdb
from ms_ocr_handwritten.lmdb.store import write_lmdb
from ms_ocr_handwritten.vocab import Vocabulary

VOCABULARY = Vocabulary(tuple("abc, 在"))


def encoded(width: int = 64, height: int = 16, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height), 255).save(file, kind)
    return file.getvalue()


def write(path: Path, change: dict[str, bytes | None] | None = None, labels: tuple[str, ...] = ("a", "b", "c")) -> Path:
    """An LMDB of one line per label, then changed record by record (None removes)."""
    write_lmdb(path, [(encoded(), label) for label in labels])
    with lmdb.open(str(path), map_size=2**20) as environment, environment.begin(write=True) as transaction:
        for key, value in (change or {}).items():
            if value is None:
                assert transaction.delete(key.encode())
            else:
                transaction.put(key.encode(), value)
    return path


def found(path: Path, vocabulary: Vocabulary | None = VOCABULARY) -> list[tuple[str, str]]:
    return [(problem.key, problem.kind) for problem in validate_lmdb(path, vocabulary).problems]


def test_a_sound_lmdb_has_no_problem(tmp_path):
    calls: list[tuple[int, int]] = []
    path = write(tmp_path / "lines", {"my-own-key": b"1"}, ("a", "b，\u3000ａ", "在"))
    report = validate_lmdb(path, VOCABULARY, lambda done, total: calls.append((done, total)))
    assert report.ok and report.problems == () and report.kinds == {}
    assert (report.path, report.count, report.samples) == (str(path), 3, 3)
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"num-samples": None}, [("num-samples", "count")]),
        ({"num-samples": b"many"}, [("num-samples", "count")]),
        ({"num-samples": b"1000000000"}, [("num-samples", "count")]),
        (
            {"num-samples": b"1"},
            [("num-samples", "count"), ("image-000000002", "beyond-count"), ("image-000000003", "beyond-count")],
        ),
        ({"image-000000002": None}, [("image-000000002", "missing")]),
        ({"label-000000002": None}, [("label-000000002", "missing")]),
        ({"image-000000001": None, "label-000000001": None}, [("image-000000001", "missing")]),
        ({"image-4": b"x", "label-000000000": b"x"}, [("image-4", "key"), ("label-000000000", "key")]),
        ({"image-000000002": b"no image"}, [("image-000000002", "image")]),
        ({"image-000000002": encoded(300, 300)[:-40]}, [("image-000000002", "image")]),
        ({"image-000000002": encoded(1, 100)}, [("image-000000002", "image")]),
        ({"label-000000002": b"a\xff"}, [("label-000000002", "label")]),
        ({"label-000000002": b""}, [("label-000000002", "empty-label")]),
        ({"label-000000002": b" "}, [("label-000000002", "empty-label")]),
        ({"label-000000002": "xa，é".encode()}, [("label-000000002", "unknown-character")]),
        ({"label-000000002": b"a" * 102}, [("label-000000002", "alignment")]),
        # 101 characters and 100 blanks between them: all 201 columns, of which the line covers 32
        ({"label-000000002": b"a" * 101}, [("label-000000002", "crowded")]),
        ({"label-000000002": b"ab" * 16}, []),
        ({"label-000000002": b"ab" * 16 + b"a"}, [("label-000000002", "crowded")]),
        ({"image-000000002": encoded(804, 32), "label-000000002": b"ab" * 100 + b"a"}, []),
        ({"label-000000002": b" a"}, [("label-000000002", "spaces")]),
        ({"label-000000002": b"b\xe3\x80\x80"}, [("label-000000002", "spaces")]),  # U+3000, folded to a space
        ({"label-000000002": b"a  b"}, [("label-000000002", "spaces")]),
        ({"label-000000002": b"a b c"}, []),
        (
            {"label-000000002": b"a\nb"},
            [("label-000000002", "control-character"), ("label-000000002", "unknown-character")],
        ),
        ({"label-000000002": b"ab" * 101}, [("label-000000002", "alignment")]),
        ({"image-000000002": encoded(1000, 32), "label-000000002": b"ab" * 101}, []),  # four chunks, 250 columns of ink
    ],
)
def test_each_fault_is_found_and_nothing_else(tmp_path, change, expected):
    assert found(write(tmp_path / "lines", change)) == expected


def test_every_fault_of_one_sample_is_listed(tmp_path):
    path = write(tmp_path / "lines", {"image-000000002": b"", "label-000000002": b"xyz"})
    report = validate_lmdb(path, VOCABULARY)
    assert report.problems[0].kind == "image"
    assert report.problems[1] == Problem(
        "label-000000002", "unknown-character", "'x' (U+0078), 'y' (U+0079), 'z' (U+007A) in 'xyz'"
    )
    assert report.kinds == {"image": 1, "unknown-character": 1} and not report.ok


def test_details_tell_what_is_there_and_what_is_needed(tmp_path):
    path = write(tmp_path / "lines", {"num-samples": b"9", "label-000000002": b"a" * 102})
    count, alignment = validate_lmdb(path, VOCABULARY).problems
    assert count.detail == "says 9, but the last sample there is number 3"
    assert alignment.detail.startswith("102 characters need 203 columns, the line has 201: 'aaa")


def test_a_decomposed_label_is_called_that_and_not_unknown(tmp_path):
    decomposed = unicodedata.normalize("NFD", "é")
    path = write(tmp_path / "lines", {"label-000000002": decomposed.encode(), "label-000000003": b"\xcc\x81"})
    problems = validate_lmdb(path, Vocabulary(tuple("abcé"))).problems
    assert [(one.key, one.kind) for one in problems] == [
        ("label-000000002", "decomposed"),
        ("label-000000003", "unknown-character"),  # a lone mark, which NFC leaves as it is
    ]
    assert problems[0].detail.startswith("decomposed, normalise to NFC (`ms-ocr lmdb build --normalise nfc`)")
    assert found(path, None) == [("label-000000002", "decomposed")]


def test_without_a_vocabulary_characters_are_not_checked(tmp_path):
    path = write(tmp_path / "lines", {"label-000000002": b"xyz"})
    assert found(path, None) == []


def test_columns_follow_the_width_of_the_line():
    assert line_columns(encoded(64, 32)) == 201
    assert line_columns(encoded(804, 32)) == 201
    assert line_columns(encoded(805, 32)) == 264


def test_a_path_that_is_no_lmdb_raises(tmp_path):
    for check in (validate_lmdb, inspect_lmdb):
        with pytest.raises(LmdbError, match="nowhere: no such file or folder"):
            check(tmp_path / "nowhere")


def test_the_summary_counts_what_is_there(tmp_path):
    lines = [(encoded(100, 20), "ab"), (encoded(300, 30, "JPEG"), "b在b "), (encoded(400, 40), "c"), (b"broken", "a")]
    write_lmdb(tmp_path / "lines", lines)
    summary = inspect_lmdb(tmp_path / "lines")
    assert summary.samples == 4
    assert summary.image_formats == {"PNG": 2, "JPEG": 1}
    assert summary.widths == Spread(100, 300, 400)
    assert summary.heights == Spread(20, 30, 40)
    assert summary.aspects == Spread(5, 10, 10)
    assert summary.label_lengths == {1: 2, 2: 1, 4: 1}
    assert summary.label_percentiles[50] == 1.5
    assert summary.characters == {"b": 3, "a": 2, "在": 1, " ": 1, "c": 1}
    assert summary.unreadable == ("image-000000004",)


def test_the_summary_refuses_a_wrong_count_and_lists_bad_labels(tmp_path):
    path = write(tmp_path / "lines", {"label-000000002": b"\xff"})
    assert inspect_lmdb(path).unreadable == ("label-000000002",)
    with pytest.raises(LmdbError, match="says 5 samples.*ms-ocr lmdb validate"):
        inspect_lmdb(write(tmp_path / "wrong", {"num-samples": b"5"}))
