"""Training under torchrun, two processes on CPUs: equal networks, shared work, one set of files, scores as of one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ALPHABET, ROOT, TINY_NETWORK, make_model_dir, random_texts
from distributed_training import SGD
from training_tools import assert_equal_weights, lmdb_of, prepare, read_raw, read_weights_file

from ms_ocr_handwritten.training.distributed import Ranks
from ms_ocr_handwritten.training.setup import evaluate_model_dir

SCRIPT = ROOT / "tests" / "distributed_training.py"
LINES, HELD_OUT, BATCH = 21, 13, 8  # odd numbers of lines; 11 lines a rank, so batches of 8 and 3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def torchrun(*arguments: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--master_addr",
        "127.0.0.1",
        "--master_port",
        str(free_port()),
        str(SCRIPT),
        *map(str, arguments),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=arguments[-1])
    assert done.returncode == 0, done.stderr
    assert "destroy_process_group" not in done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> dict:
    """A training of two processes, and what each of them saw."""
    folder = tmp_path_factory.mktemp("distributed")
    model = make_model_dir(folder / "model", ALPHABET, **TINY_NETWORK)
    lines = lmdb_of(folder / "lines", random_texts(LINES, 4))
    held_out = lmdb_of(folder / "held_out", random_texts(HELD_OUT, 4, seed=1))
    (folder / "out").mkdir()
    torchrun(model, lines, held_out, folder / "work", folder / "out")
    ranks = [json.loads((folder / "out" / f"rank_{rank}.json").read_text()) for rank in (0, 1)]
    return {"model": model, "lines": lines, "held_out": held_out, "work": folder / "work", "ranks": ranks}


def test_automatic_precision_is_one_for_all_ranks(run):
    """Rank 0 would be faster in bf16, rank 1 would not."""
    assert [rank["bf16"] for rank in run["ranks"]] == [False, False]


def test_each_rank_has_its_own_lines_in_batches_of_its_own(run):
    """batch_size_per_gpu is per process. 21 lines over two ranks are 11 each: one line comes twice."""
    first, second = (rank["batches"] for rank in run["ranks"])
    assert [len(batch) for batch in first] == [len(batch) for batch in second] == [BATCH, LINES // 2 + 1 - BATCH]
    drawn = sorted(index for batch in first + second for index in batch)
    assert set(drawn) == set(range(LINES)) and len(drawn) == LINES + 1
    for rank in run["ranks"]:
        assert rank["world"] == 2
        assert rank["trained"][:11] == [index for batch in rank["batches"] for index in batch]
        assert len(rank["trained"]) == 2 * 11  # two epochs


def test_each_line_is_evaluated_once(run):
    first, second = (rank["evaluated"] for rank in run["ranks"])
    assert sorted(first + second) == list(range(HELD_OUT))
    assert (len(first), len(second)) == (7, 6)


def test_all_ranks_end_with_the_same_network_and_scores(run):
    first, second = run["ranks"]
    assert first["bias"] == second["bias"] and first["summary"] == second["summary"]
    saved = read_weights_file(run["work"] / "epoch_2.pth")["recognizer.vitstr.head.bias"]
    assert saved.tolist() == first["bias"]


def test_scores_equal_those_of_one_process(run):
    output = run["work"] / "output"
    alone = evaluate_model_dir(output, read_raw(output), [run["held_out"]])
    together = dict(run["ranks"][0]["summary"])
    assert together["lines"] == HELD_OUT
    assert together.pop("avg_loss") == pytest.approx(alone.pop("avg_loss"), rel=1e-6)
    assert together == alone


def test_gradients_are_those_of_the_joint_batch(run, tmp_path):
    """Both ranks' lines have equal weight: one process with batches of 16 (and 6) learns the same."""
    training = prepare(run["model"], run["lines"], tmp_path / "work", max_epochs=1, optimizer=SGD)
    first, second = (rank["batches"] for rank in run["ranks"])
    joint = [a + b for a, b in zip(first, second)]
    training.batches = lambda: joint
    training.run()
    state = torch.load(run["work"] / "epoch_1_trainer_state.pth", weights_only=True)["network"]
    found = read_weights_file(tmp_path / "work" / "epoch_1.pth")
    for name, value in state.items():
        torch.testing.assert_close(found[f"recognizer.{name}"], value, rtol=1e-3, atol=1e-5, msg=name)


def test_files_are_written_once(run):
    assert sorted(path.name for path in run["work"].iterdir()) == [
        "best.json",
        "epoch_1.pth",
        "epoch_1_trainer_state.pth",
        "epoch_2.pth",
        "epoch_2_trainer_state.pth",
        "output",
        "output_best",
        "resume.json",
        "train_log.jsonl",
    ]
    entries = [json.loads(line) for line in (run["work"] / "train_log.jsonl").read_text().splitlines()]
    assert [(entry["mode"], entry["epoch"]) for entry in entries] == [
        ("train", 1),
        ("eval", 1),
        ("train", 2),
        ("eval", 2),
    ]


def test_no_thread_of_the_group_outlives_it(run):
    """One that is left when Python ends may abort a process that has done its work."""
    for rank in run["ranks"]:
        assert "python" in " ".join(rank["threads"]) and not [name for name in rank["threads"] if "gloo" in name]


def test_states_of_all_ranks_are_kept(run):
    states = torch.load(run["work"] / "epoch_2_trainer_state.pth", weights_only=True)["random_states"]
    assert len(states) == 2 and not torch.equal(states[0]["cpu"], states[1]["cpu"])


def test_going_on_under_torchrun_equals_one_go(run, tmp_path):
    """From a copy of the work_dir as it was after the first epoch."""
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    out.mkdir()
    for name in ("epoch_1.pth", "epoch_1_trainer_state.pth"):
        (work / name).write_bytes((run["work"] / name).read_bytes())
    (work / "resume.json").write_text(json.dumps({"state": "epoch_1_trainer_state.pth", "finished": 1}))
    torchrun(run["model"], run["lines"], run["held_out"], work, out)
    assert_equal_weights(read_weights_file(work / "epoch_2.pth"), read_weights_file(run["work"] / "epoch_2.pth"))


@pytest.mark.parametrize("count, world", [(7, 2), (2, 3), (0, 2), (9, 1)])
def test_shares_are_disjoint_and_complete(count, world):
    shares = [Ranks(rank, world, torch.device("cpu")).share(range(count)) for rank in range(world)]
    assert sorted(index for share in shares for index in share) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
