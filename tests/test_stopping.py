"""Signals and the lock: a training that is asked to end saves first, and no second one joins it in its work_dir."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from conftest import ALPHABET, TINY_NETWORK, make_model_dir
from test_atomic import full_disk
from training_tools import assert_equal_weights, prepare, read_weights_file

from ms_ocr_handwritten.errors import ConfigurationError, OutputError
from ms_ocr_handwritten.training.dataset import LineDataset
from ms_ocr_handwritten.training.lock import LOCK_FILE, locked

TRAIN = {"max_epochs": 1, "dataloader": {"batch_size_per_gpu": 8}}


class Signalled(LineDataset):
    """Lines, of which reading the one at `place` in the order of reading sends `signals` to this process."""

    place: int
    signals: tuple[int, ...]

    def __getitem__(self, index: int):
        self.place -= 1
        if self.place == 0:
            for number in self.signals:
                os.kill(os.getpid(), number)
        return super().__getitem__(index)


def signalled(training, place: int, *signals: int):
    training.dataset.__class__, training.dataset.place, training.dataset.signals = Signalled, place, signals
    return training


def position(work: Path) -> tuple[int, int]:
    state = torch.load(work / "latest_trainer_state.pth", weights_only=True)
    return state["epoch"], state["iteration"]


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return make_model_dir(tmp_path / "model", ALPHABET, **{**TINY_NETWORK, "dropout": 0.2})


# ---------------------------------------------------------------------- signals


@pytest.mark.parametrize("number, kind", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_saves_after_the_step_and_nothing_is_lost(model_dir, lines_lmdb, tmp_path, number, kind, capfd):
    handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    work = tmp_path / "work"
    with pytest.raises(kind) as caught:
        signalled(prepare(model_dir, lines_lmdb, work, **TRAIN), 20, number).run()
    assert number == signal.SIGINT or caught.value.code == 128 + signal.SIGTERM
    assert f"{signal.Signals(number).name}: saving after this step, then ending" in capfd.readouterr().err
    assert position(work) == (0, 3)  # line 20 is of the third batch
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == handlers
    prepare(model_dir, lines_lmdb, work, **TRAIN).run()
    assert "resuming after epoch 0, batch 3" in capfd.readouterr().err
    prepare(model_dir, lines_lmdb, tmp_path / "whole", **TRAIN).run()
    assert_equal_weights(*(read_weights_file(folder / "epoch_1.pth") for folder in (work, tmp_path / "whole")))


def test_between_accumulated_batches_the_step_is_ended_first(model_dir, lines_lmdb, tmp_path):
    train = {**TRAIN, "optimizer": {"type": "AdamW", "options": {"cumulative_iters": 4}}}
    with pytest.raises(SystemExit):
        signalled(prepare(model_dir, lines_lmdb, tmp_path / "work", **train), 5, signal.SIGTERM).run()
    assert position(tmp_path / "work") == (0, 4)


def test_a_second_ctrl_c_ends_at_once(model_dir, lines_lmdb, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        signalled(prepare(model_dir, lines_lmdb, tmp_path / "work", **TRAIN), 20, signal.SIGINT, signal.SIGINT).run()
    assert not list((tmp_path / "work").glob("*.pth"))


def test_in_the_last_batch_the_epochs_state_is_saved(model_dir, lines_lmdb, tmp_path):
    with pytest.raises(SystemExit):
        signalled(prepare(model_dir, lines_lmdb, tmp_path / "work", **TRAIN), 48, signal.SIGTERM).run()
    state = torch.load(tmp_path / "work" / "epoch_1_trainer_state.pth", weights_only=True)
    assert (state["epoch"], state["iteration"]) == (1, 0) and not (tmp_path / "work" / "epoch_1.pth").exists()


def test_outside_of_the_steps_a_signal_ends_at_once(model_dir, lines_lmdb, tmp_path):
    """In the evaluation all that is trained is saved already."""
    training = prepare(model_dir, lines_lmdb, tmp_path / "work", [lines_lmdb], **TRAIN)
    training.judge.evaluation.__class__, training.judge.evaluation.place = Signalled, 1
    training.judge.evaluation.signals = (signal.SIGTERM,)
    with pytest.raises(SystemExit):
        training.run()
    assert training.judge.evaluation.place > -16  # the batch that it came in, and no more


def test_workers_outlive_a_signal_to_all_processes(model_dir, lines_lmdb, tmp_path):
    """Slurm and terminals send it to the whole group; the step at work still gets its batch."""
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, os, signal\n"
        "from pathlib import Path\n"
        "from training_tools import prepare\n"
        "model, lines, work = map(Path, sys.argv[1:])\n"
        "loader = {'batch_size_per_gpu': 8, 'workers_per_gpu': 1}\n"
        "training = prepare(model, lines, work, dataloader=loader, max_epochs=1)\n"
        "learn = training._learn\n"
        "def learn_third(batch, share):\n"
        "    if training.iteration == 2:\n"
        "        os.killpg(os.getpgid(0), signal.SIGTERM)\n"
        "    return learn(batch, share)\n"
        "training._learn = learn_third\n"
        "training.run()\n"
    )
    done = subprocess.run(
        [sys.executable, script, model_dir, lines_lmdb, tmp_path / "work"],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}",
        },
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert position(tmp_path / "work") == (0, 3)


def test_in_another_thread_signals_are_left_alone(model_dir, lines_lmdb, tmp_path):
    training, summaries = prepare(model_dir, lines_lmdb, tmp_path / "work", [lines_lmdb], **TRAIN), []
    thread = threading.Thread(target=lambda: summaries.append(training.run()))
    thread.start()
    thread.join()
    assert summaries[0]["lines"] == 48


# ---------------------------------------------------------------------- the lock


def test_a_second_training_is_refused_while_the_first_is_at_work(model_dir, lines_lmdb, tmp_path):
    """The first one is another process, which then is killed."""
    work = tmp_path / "work"
    work.mkdir()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\n"
            "from pathlib import Path\n"
            "from ms_ocr_handwritten.training.lock import locked\n"
            "with locked(Path(sys.argv[1])):\n"
            "    print('held', flush=True)\n"
            "    time.sleep(600)\n",
            work,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            ConfigurationError, match=f"{work}: another training is running .*in process {holder.pid} on "
        ):
            prepare(model_dir, lines_lmdb, work, **TRAIN).run()
        assert [path.name for path in work.iterdir()] == [LOCK_FILE]
    finally:
        holder.kill()
        holder.wait()
    prepare(model_dir, lines_lmdb, work, **TRAIN).run()
    assert (work / "epoch_1.pth").exists() and not (work / LOCK_FILE).exists()


def test_one_process_does_not_train_twice_in_a_folder(tmp_path):
    """To the process itself the system would give the lock again; a link is the same folder."""
    (tmp_path / "link").symlink_to(tmp_path)
    with locked(tmp_path):
        for folder in (tmp_path, tmp_path / "link"):
            message = "running there, in this process; wait until it ends, or name"
            with pytest.raises(ConfigurationError, match=message), locked(folder):
                pass
        assert (tmp_path / LOCK_FILE).read_text().split()[0] == str(os.getpid())
    with locked(tmp_path):
        pass


def test_a_full_disk_under_the_lock_is_named(tmp_path):
    message = f"{LOCK_FILE}: cannot be written .File too large.; free some space"
    with full_disk(0), pytest.raises(OutputError, match=message), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_folder_of_epochs_is_locked_too(model_dir, lines_lmdb, tmp_path):
    (tmp_path / "epochs").mkdir()
    checkpoint = {"period": {"save_dir": str(tmp_path / "epochs")}}
    with locked(tmp_path / "epochs"), pytest.raises(ConfigurationError, match="epochs: another training is running"):
        prepare(model_dir, lines_lmdb, tmp_path / "work", **TRAIN, checkpoint=checkpoint).run()


def test_a_lock_whose_file_was_removed_keeps_nobody_out(tmp_path, monkeypatch):
    """Its holder ends between our opening of the file and our lock: the file that is locked then is no longer there."""
    lockf, removed = fcntl.lockf, []

    def after_the_holder_has_left(descriptor: int, operation: int) -> None:
        lockf(descriptor, operation)
        if not removed:
            removed.append((tmp_path / LOCK_FILE).unlink())

    monkeypatch.setattr(fcntl, "lockf", after_the_holder_has_left)
    with locked(tmp_path):
        assert removed and (tmp_path / LOCK_FILE).exists()


def test_without_locks_it_says_so_and_goes_on(tmp_path, monkeypatch, capsys):
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", unsupported)
    with locked(tmp_path):
        pass
    assert (
        f"{tmp_path}: cannot be locked (No locks available); make sure that no other training writes"
        in capsys.readouterr().err
    )
