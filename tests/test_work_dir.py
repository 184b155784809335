"""The files of a training by hand, without one: which are whose, what is moved aside, and what the log still says."""

import json
import os
from pathlib import Path

import pytest

from ms_ocr_handwritten.errors import CheckpointError, ConfigurationError, OutputError
from ms_ocr_handwritten.training.checkpoints import Progress, WorkDir, save_model_dir
from ms_ocr_handwritten.vocab import Vocabulary


def filled(folder: Path, *names: str) -> WorkDir:
    """A work_dir with files that hold their own names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return WorkDir(folder)


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def both(*epochs: int) -> list[str]:
    return [f"epoch_{epoch}{suffix}" for epoch in epochs for suffix in (".pth", "_trainer_state.pth")]


def entry(mode: str, epoch: int, iteration: int | None = None) -> dict:
    return {"mode": mode, "epoch": epoch} | ({} if iteration is None else {"iter": iteration})


LOG = [
    entry("train", 1, 3),
    entry("train", 1, 6),
    entry("eval", 1),
    entry("train", 2, 3),
    entry("eval", 2, 4),
    entry("train", 2, 6),
    entry("eval", 2),
]


def with_log(folder: Path, entries: list[dict], best: dict | None = None) -> WorkDir:
    work = WorkDir(folder)
    for one in entries:
        work.log(one)
    if best:
        (folder / "best.json").write_text(json.dumps({"metric": "cer", "value": 0.5, **best}))
    return work


def logged(path: Path) -> list:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---------------------------------------------------------------------- epochs


def test_epochs_are_those_with_weights_or_a_state(tmp_path):
    others = ("epoch_x.pth", "epoch_4.pth.part", "my_epoch_5.pth", "epoch_6.pt", "latest_trainer_state.pth")
    work = filled(tmp_path, "epoch_10.pth", "epoch_2_trainer_state.pth", *both(1), *others, "epoch_7_other.pth")
    assert work.epochs() == [1, 2, 10]


@pytest.mark.parametrize(
    "keep, kept", [(None, [1, 2, 9, 10]), (1, [10]), (3, [2, 9, 10]), (4, [1, 2, 9, 10]), (7, [1, 2, 9, 10])]
)
def test_the_newest_epochs_are_kept(tmp_path, keep, kept):
    work = filled(tmp_path, *both(10, 9, 1), "epoch_2.pth", "latest_trainer_state.pth")
    work.prune(keep)
    assert work.epochs() == kept
    assert names_in(tmp_path) == {name for name in both(*kept) if name != "epoch_2_trainer_state.pth"} | {
        "latest_trainer_state.pth"
    }


def test_epochs_may_have_a_folder_of_their_own(tmp_path):
    one, two = WorkDir(tmp_path / "a" / "work"), WorkDir(tmp_path / "work", tmp_path / "b" / "epochs")
    assert WorkDir(tmp_path / "work", tmp_path / "x" / ".." / "work").folders == [tmp_path / "work"]
    one.make()
    two.make()
    two.make()
    assert one.path.is_dir() and two.path.is_dir() and two.save_dir.is_dir()
    assert two.state(3) == tmp_path / "b" / "epochs" / "epoch_3_trainer_state.pth"
    two.save_progress(Progress(two.state(3), 2))
    assert json.loads(two.resume_file.read_text()) == {"state": "../b/epochs/epoch_3_trainer_state.pth", "finished": 2}
    assert two.progress() is not None and two.progress().finished == 2
    assert two.progress().state.resolve() == two.state(3) and one.progress() is None
    filled(two.save_dir, "epoch_1.pth")
    assert two.set_aside() == two.save_dir / "superseded_1"
    assert names_in(two.save_dir) == {"superseded_1/epoch_1.pth", "superseded_1/resume.json"}


@pytest.mark.parametrize("finished", [0, 3])
def test_where_a_training_stands_is_read_as_it_was_written(tmp_path, finished):
    work = WorkDir(tmp_path)
    work.save_progress(Progress(work.latest_state, finished))
    assert work.progress() == Progress(tmp_path / "latest_trainer_state.pth", finished)


@pytest.mark.parametrize(
    "raw", [{"state": "a", "finished": True}, {"state": "a\0b", "finished": 1}, {"state": "a", "finished": -1}]
)
def test_a_place_that_is_none_is_refused(tmp_path, raw):
    work = WorkDir(tmp_path)
    work.resume_file.write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match="resume.json: damaged .holds .*; remove it and continue from an epoch_N"):
        work.progress()


@pytest.mark.parametrize(
    "change", [{"epoch": "1"}, {"epoch": 1.0}, {"iter": "2"}, {"metric": 3}, {"value": float("inf")}, {"value": None}]
)
def test_a_best_that_is_none_is_refused(tmp_path, change):
    work = with_log(tmp_path, [], good := {"epoch": 1, "iter": 2})
    assert work.best() == {"metric": "cer", "value": 0.5, **good}
    with_log(tmp_path, [], good | change)
    with pytest.raises(CheckpointError, match="best.json: damaged .*; remove it: the next evaluation"):
        work.best()


# ---------------------------------------------------------------------- moving aside


def test_all_of_a_training_is_moved_aside_and_nothing_else(tmp_path):
    own = [*both(1, 2), "latest_trainer_state.pth", "resume.json", "best.json", "train_log.jsonl"]
    own += ["output/pytorch_model.pt", "output_best/vocab.txt", "tensorboard/events"]
    work = filled(tmp_path, *own, "superseded_1/epoch_1.pth", "notes.txt")
    assert work.set_aside() == tmp_path / "superseded_2"
    assert names_in(tmp_path) == {f"superseded_2/{name}" for name in own} | {"superseded_1/epoch_1.pth", "notes.txt"}
    assert work.set_aside() is None and not (tmp_path / "superseded_3").exists()


@pytest.mark.parametrize(
    "best, moved",
    [
        (entry("eval", 1), False),  # at the end of the epoch that is kept
        (entry("eval", 2, 3), False),  # after the last batch that is kept
        (entry("eval", 2, 4), True),
        (entry("eval", 2), True),
        (entry("eval", 3, 1), True),
    ],
)
def test_going_back_moves_later_epochs_aside_and_a_later_best(tmp_path, best, moved):
    """After three batches of epoch 2."""
    filled(tmp_path, *both(1, 2, 12), "output_best/vocab.txt", "output/vocab.txt", "resume.json")
    work = with_log(tmp_path, [], best)
    assert work.set_aside_after(1, 3) == tmp_path / "superseded_1"
    later = {"best.json", "output_best/vocab.txt"} if moved else set()
    assert {name.removeprefix("superseded_1/") for name in names_in(tmp_path) if "superseded" in name} == later | set(
        both(2, 12)
    )
    assert work.set_aside_after(1, 3) is None


@pytest.mark.parametrize("name", [*both(3), "resume.json", "output/pytorch_model.pt", "output_best/pytorch_model.pt"])
def test_files_of_another_training_are_refused(tmp_path, name):
    filled(tmp_path, "train_log.jsonl", "latest.txt").refuse_foreign_files()
    with pytest.raises(ConfigurationError, match=f"^{tmp_path / name}: belongs to another training"):
        filled(tmp_path, name).refuse_foreign_files()


# ---------------------------------------------------------------------- the log


@pytest.mark.parametrize(
    "content, kept", [(b"", b""), (b"torn", b""), (b"a\nb\nto", b"a\nb\n"), (b"a\nb\n", b"a\nb\n")]
)
def test_a_torn_last_line_is_cut_off(tmp_path, content, kept):
    work = WorkDir(tmp_path)
    work.tidy()  # nothing is there
    work.log_file.write_bytes(content)
    work.tidy()
    assert work.log_file.read_bytes() == kept


def test_lines_are_appended_as_they_are(tmp_path):
    work = with_log(tmp_path, [{"left_out": "手"}, {"loss": 0.5}])
    assert work.log_file.read_text(encoding="utf-8") == '{"left_out": "手"}\n{"loss": 0.5}\n'
    (tmp_path / "folder" / "train_log.jsonl").mkdir(parents=True)
    with pytest.raises(OutputError, match="train_log.jsonl: cannot be written"):
        WorkDir(tmp_path / "folder").log({})


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files as Linux does")
def test_the_log_is_closed_after_each_line(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    with_log(tmp_path, LOG)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "best, since", [(None, 3), (entry("eval", 1), 2), (entry("eval", 2, 4), 1), (entry("eval", 2), 0)]
)
def test_evaluations_after_the_best_are_counted(tmp_path, best, since):
    assert with_log(tmp_path, LOG, best).evaluations_since_best() == since
    assert WorkDir(tmp_path / "empty").evaluations_since_best() == 0


@pytest.mark.parametrize(
    "place, kept",
    [  # epochs, batches of the next, epochs that are evaluated -> lines of LOG that stay
        ((0, 0, 0), []),
        ((0, 3, 0), [0]),
        ((1, 0, 0), [0, 1]),
        ((1, 0, 1), [0, 1, 2]),
        ((1, 3, 1), [0, 1, 2, 3]),
        ((1, 4, 1), [0, 1, 2, 3, 4]),
        ((2, 0, 1), [0, 1, 2, 3, 4, 5]),
        ((2, 0, 2), [0, 1, 2, 3, 4, 5, 6]),
    ],
)
@pytest.mark.parametrize("keeps", [True, False])
def test_lines_of_what_is_done_once_more_leave_the_log(tmp_path, place, kept, keeps):
    work, aside = with_log(tmp_path, LOG), tmp_path / "superseded_1"
    aside.mkdir()
    with open(work.log_file, "a", encoding="utf-8") as file:
        file.write('a note\n["mode"]\n{"mode": "train"}\n{"mode": "eval", "epoch": "x"}\n')  # not ours: they stay
    before, inode = work.log_file.read_text(), os.stat(work.log_file).st_ino
    work.rewind_log(*place, aside if keeps else None)
    lines = before.splitlines(keepends=True)
    assert work.log_file.read_text() == "".join([lines[number] for number in kept] + lines[len(LOG) :])
    gone = [LOG[number] for number in range(len(LOG)) if number not in kept]
    if gone and keeps:
        assert logged(aside / "train_log.jsonl") == gone
    else:
        assert names_in(aside) == set()
    assert gone or os.stat(work.log_file).st_ino == inode


def test_a_log_that_is_not_there_is_not_made(tmp_path):
    WorkDir(tmp_path).rewind_log(0, 0, 0, None)
    assert names_in(tmp_path) == set()


# ---------------------------------------------------------------------- model directories


def test_files_that_stay_the_same_are_not_written_again(tmp_path):
    class Weightless:
        def state_dict(self) -> dict:
            return {}

    inodes = []
    for characters in ("ab", "ab", "abc"):
        save_model_dir(tmp_path, Weightless(), Vocabulary(tuple(characters)), {"task": "手"})
        inodes.append([os.stat(tmp_path / name).st_ino for name in ("configuration.json", "vocab.txt")])
    assert inodes[0] == inodes[1] and inodes[1][0] == inodes[2][0] and inodes[1][1] != inodes[2][1]
    assert '"task": "手"' in (tmp_path / "configuration.json").read_text(encoding="utf-8")
