"""vocab.txt <-> ids: the official file's oddities, bad files by their messages, growth, saving."""

import pickle
import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from ms_ocr_handwritten import vocab
from ms_ocr_handwritten.errors import LabelError, OutputError, VocabularyError
from ms_ocr_handwritten.vocab import Vocabulary, fold_full_width

OFFICIAL = Path(__file__).resolve().parents[2] / "shared" / "official" / "vocab.txt"

# Like the official file in small: a space amid the lines, two empty lines at the end.
SMALL = "在\n保\n \na\n\n\n"


def load(tmp_path, data: str | bytes) -> Vocabulary:
    path = tmp_path / "vocab.txt"
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))
    return Vocabulary.load(path)


def official() -> Vocabulary:
    if not OFFICIAL.is_file():
        pytest.skip(f"the official vocab.txt is not beside the repository ({OFFICIAL.parent.name} is absent)")
    return Vocabulary.load(OFFICIAL)


def test_ids_begin_at_two_and_spaces_and_empty_lines_survive(tmp_path):
    vocabulary = load(tmp_path, SMALL)
    assert vocabulary.characters == ("在", "保", " ", "a", "", "")
    assert len(vocabulary) == 6
    assert vocabulary.encode("在 a保") == [2, 4, 5, 3]
    assert vocabulary.decode([2, 4, 5, 3]) == "在 a保"
    assert [vocabulary.character(id) for id in (0, 1, 2, 6, 7)] == ["", "", "在", "", ""]
    assert vocabulary.decode([2, 2, 0, 2]) == "在在在"  # no CTC collapse here
    assert vocabulary.classes == 6


def test_a_last_line_without_line_end_counts(tmp_path):
    assert load(tmp_path, "a\nb").characters == load(tmp_path, "a\nb\n").characters == ("a", "b")


def test_only_line_feeds_end_a_line(tmp_path):
    # str.splitlines would cut at each of these, and shift every later id.
    assert load(tmp_path, "\u2028\n\x0b\n\x85\n\u3000\n").characters == ("\u2028", "\x0b", "\x85", "\u3000")


def test_the_official_file():
    vocabulary = official()
    assert len(vocabulary) == 7643
    assert vocabulary.encode(" ") == [7639]
    assert vocabulary.characters[-2:] == ("", "")
    assert vocabulary.decode([7643, 7644]) == ""
    vocabulary.check_head(7644)
    text = "".join(vocabulary.characters)
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.unknown("，：？！（）") == list("，：？！（）")
    assert vocabulary.unknown(fold_full_width("，：？！（）")) == []
    grown = vocabulary.grow("，ç")
    assert grown.encode("ç，") == [7645, 7646]
    assert grown.characters[:7643] == vocabulary.characters
    assert grown.classes == 7647


def test_the_official_file_survives_a_save(tmp_path):
    official().save(tmp_path / "vocab.txt")
    assert (tmp_path / "vocab.txt").read_bytes() == OFFICIAL.read_bytes()


@pytest.mark.parametrize(
    "data, parts",
    [
        ("a\nb\r\nc\r\n", ["vocab.txt: line 2 holds a carriage return", "Unix line endings"]),
        ("a\nb\n\na\n", ["vocab.txt: lines 1 and 4 both hold 'a' (U+0061)", "do not remove the line"]),
        ("a\ne\u0301\n", ["vocab.txt: line 2 holds 2 code points (U+0065 U+0301)", "split it"]),
        ("\ufeffa\nb\n", ["vocab.txt: line 1 holds 2 code points (U+FEFF U+0061)", "byte order mark"]),
        (b"a\nb\n\xb1\xa3\n", ["vocab.txt: line 3 is not UTF-8", "convert the file to UTF-8"]),
        ("", ["vocab.txt: holds no character", "one character a line"]),
        ("\n\n", ["vocab.txt: holds no character", "one character a line"]),
        (b"\n\xb1", ["vocab.txt: line 2 is not UTF-8"]),
    ],
)
def test_a_bad_file_is_named_with_the_line_and_the_remedy(tmp_path, data, parts):
    with pytest.raises(VocabularyError) as error:
        load(tmp_path, data)
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(VocabularyError, match="nowhere.txt: cannot be read .*beside its weights"):
        Vocabulary.load(tmp_path / "nowhere.txt")


def test_unknown_characters_are_named_with_code_points_and_positions(tmp_path):
    vocabulary = load(tmp_path, SMALL)
    with pytest.raises(LabelError) as error:
        vocabulary.encode("a😀在x😀")
    message = str(error.value)
    assert "'😀' (U+1F600) at positions 1, 4" in message
    assert "'x' (U+0078) at position 3" in message
    assert "grow the vocabulary" in message
    assert vocabulary.unknown("a😀在x😀") == ["😀", "x"]
    assert vocabulary.unknown("a在") == []


def test_classes_without_a_line_read_as_nothing(tmp_path):
    vocabulary = load(tmp_path, SMALL)
    assert vocabulary.decode([2, 8, 7643, 2]) == "在在"
    with pytest.raises(VocabularyError, match="class -1 does not exist"):
        vocabulary.decode([-1])


def test_the_head_must_reach_every_character_but_no_empty_line(tmp_path):
    vocabulary = load(tmp_path, SMALL)
    vocabulary.check_head(6)  # the empty lines 6 and 7 lie outside
    vocabulary.check_head(7644)
    with pytest.raises(VocabularyError, match=r"needs 6 classes but the head has 4: 2 .* first is ' ' \(U\+0020\)"):
        vocabulary.check_head(4)


def test_growth_keeps_every_old_id_and_goes_by_code_point(tmp_path):
    vocabulary = load(tmp_path, SMALL)
    grown = vocabulary.grow(["é", "b", "a", "b"])
    assert grown.characters == vocabulary.characters + ("b", "é")
    assert "".join(vocabulary.grow(set("qwertyuiop")).characters[6:]) == "eiopqrtuwy"  # whatever the set's order
    assert grown.encode("在保 abé") == [2, 3, 4, 5, 8, 9]
    assert grown.classes == 10
    assert vocabulary.characters == ("在", "保", " ", "a", "", "")


@pytest.mark.parametrize(
    "character, part", [("ab", "2 code points"), ("\n", "U+000A"), ("", "empty string"), ("\ud800", "U+D800")]
)
def test_growth_refuses_what_a_line_cannot_hold(tmp_path, character, part):
    with pytest.raises(VocabularyError) as error:
        load(tmp_path, SMALL).grow([character])
    assert part in str(error.value)


def test_characters_of_a_list_are_a_tuple_and_growth_keeps_the_first_id():
    vocabulary = Vocabulary(["a", "b"], first_id=1)
    assert vocabulary.characters == ("a", "b") and vocabulary.encode("ab") == [1, 2]
    assert vocabulary.grow("c") == Vocabulary(("a", "b", "c"), first_id=1)


@pytest.mark.parametrize("character", ["\n", "\r", "\ud800", "\udfff"])
def test_what_no_line_of_a_file_can_hold_is_no_entry(character):
    with pytest.raises(VocabularyError, match=f"line 1 is U\\+{ord(character):04X}, which a line of vocab.txt"):
        Vocabulary((character,))


def test_long_entries_are_shortened_in_messages():
    shown = " ".join(["U+0061"] * 8)
    for length, rest in ((8, ""), (9, " ...")):
        with pytest.raises(VocabularyError, match=re.escape(f"holds {length} code points ({shown}{rest}) where one")):
            Vocabulary(("a" * length,))


def test_a_file_may_be_as_long_as_all_of_unicode_but_no_longer(tmp_path, monkeypatch):
    monkeypatch.setattr(vocab, "MOST_BYTES", 4)
    assert load(tmp_path, "a\nb\n").characters == ("a", "b")
    with pytest.raises(VocabularyError, match="over 4 bytes"):
        load(tmp_path, "a\nb\nc")


def test_saving_gives_the_same_bytes_and_overwrites_nothing(tmp_path):
    vocabulary = load(tmp_path, SMALL)
    copy = tmp_path / "copy.txt"
    vocabulary.save(copy)
    vocabulary.save(copy)  # the same content: nothing to do
    assert copy.read_text(encoding="utf-8") == SMALL
    with pytest.raises(VocabularyError, match="copy.txt: exists and holds another vocabulary; choose another path"):
        vocabulary.grow("z").save(copy)
    assert copy.read_text(encoding="utf-8") == SMALL
    with pytest.raises(OutputError, match="copy.txt/vocab.txt: cannot be written.*correct the permissions"):
        vocabulary.save(copy / "vocab.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.txt", "vocab.txt"]


def test_it_is_immutable_comparable_and_picklable(tmp_path):
    vocabulary = load(tmp_path, SMALL)
    with pytest.raises(FrozenInstanceError):
        vocabulary.characters = ("b",)
    copy = pickle.loads(pickle.dumps(vocabulary))
    assert copy == vocabulary and copy.encode("a") == [5]
    assert hash(copy) == hash(vocabulary)


def test_folding_is_upstreams():
    def upstream(character: str) -> str:  # `Q2B`, ocr_recognition_dataset.py
        code = ord(character)
        code = 0x20 if code == 0x3000 else code - 0xFEE0
        return character if code < 0x20 or code > 0x7E else chr(code)

    text = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    assert fold_full_width(text) == "".join(map(upstream, text))
    assert fold_full_width("Ａ１，\u3000（ｂ）！、。") == "A1, (b)!、。"
