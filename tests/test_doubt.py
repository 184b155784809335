"""bf16 with fp32 where it leaves the text in doubt: which columns decide, and that the texts are those of fp32."""

import itertools

import numpy as np
import pytest
import torch
from conftest import unsure_lines

from ms_ocr_handwritten import Recognizer, default_model_dir
from ms_ocr_handwritten.backends.base import ColumnPath
from ms_ocr_handwritten.backends.columns import BLOCK, best_columns, two_best
from ms_ocr_handwritten.backends.doubt import LONGEST_DOUBT, columns_in_doubt, settle
from ms_ocr_handwritten.backends.pytorch import TorchBackend
from ms_ocr_handwritten.ctc import collapse
from ms_ocr_handwritten.geometry import canvas_columns, chunk_of_column, kept_columns
from ms_ocr_handwritten.image import line_canvas, load_image
from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.nets.weights import load_network


def text(ids) -> tuple[int, ...]:
    return tuple(run.id for run in collapse(np.array(ids), np.zeros(len(ids), np.float32)))


@pytest.mark.parametrize(
    "ids, rivals, doubt",
    [
        ([0, 5, 5, 0], [0, 5, 5, 0], False),
        ([0, 5, 5, 0], [0, 5, 0, 0], False),  # the 5 ends a column earlier: it is there all the same
        ([0, 5, 0, 0], [0, 0, 0, 0], True),  # or is it
        ([0, 5, 5, 0], [0, 0, 0, 0], True),  # only both columns together decide
        ([0, 5, 5, 0], [0, 5, 7, 0], True),
        ([5, 5, 7, 7], [5, 7, 5, 7], True),  # 5 7 or 5 7 5 7
        ([5, 0, 5], [5, 5, 5], True),  # two of them or one
        ([5, 0, 0], [5, 5, 0], False),
        ([0] + [5] * 9 + [0], [0] + [0] * 8 + [5, 0], True),  # more than are compared
    ],
)
def test_doubt_by_hand(ids, rivals, doubt):
    assert bool(columns_in_doubt(np.array(ids), np.array(rivals))) is doubt


def test_doubt_is_there_just_where_some_choice_of_rivals_changes_the_text():
    random = np.random.default_rng(0)
    found = []
    for _ in range(400):
        ids = random.integers(0, 3, 9)
        rivals = np.where(random.random(9) < 0.3, random.integers(0, 3, 9), ids)
        contested = ids != rivals
        if max((len(list(run)) for open, run in itertools.groupby(contested) if open), default=0) > LONGEST_DOUBT:
            continue
        expected = len({text(path) for path in itertools.product(*zip(ids, rivals))}) > 1
        assert bool(columns_in_doubt(ids, rivals)) is expected, (ids, rivals)
        found.append(expected)
    assert 0.2 < np.mean(found) < 0.9


def test_the_columns_in_doubt_are_those_of_the_runs_that_decide():
    ids = np.array([0, 5, 5, 0, 7, 0, 0, 8, 0])
    rivals = np.array([0, 5, 0, 0, 0, 0, 0, 8, 9])  # where the 5 ends; whether there is a 7; whether a 9 follows the 8
    assert columns_in_doubt(ids, rivals) == [4, 8]


def two_chunks(contested: dict[tuple[int, int], tuple[int, int]]) -> ColumnPath:
    """Columns (2, 75) of a line of two inked chunks: blank but for {(chunk, column): (id, rival)}."""
    ids, rivals = np.zeros((2, 75), np.int64), np.zeros((2, 75), np.int64)
    for place, found in contested.items():
        ids[place], rivals[place] = found
    return ColumnPath(ids, np.zeros((2, 75), np.float32), rivals)


@pytest.mark.parametrize(
    "contested, checked",
    [
        ({(0, 72): (5, 0), (1, 2): (5, 0)}, []),  # of both chunks these columns are cut away
        ({(0, 68): (5, 0), (0, 69): (5, 5)}, [0]),  # the line goes on with the other chunk's blank: is there a 5?
        ({(0, 68): (5, 0), (1, 6): (5, 5)}, []),  # it goes on with a 5: there is one
        ({(0, 68): (5, 0), (1, 6): (5, 0)}, [0, 1]),  # both chunks together decide
        ({(1, 6): (5, 0), (1, 5): (5, 5)}, [1]),
        ({(0, 68): (5, 0), (1, 74): (5, 0)}, [0]),  # the next chunk is padding, of which columns 6 on are kept
    ],
)
def test_doubt_is_judged_on_the_joined_columns_of_the_line(contested, checked, tiny_model_dir, monkeypatch):
    model = ModelDir.open(tiny_model_dir)
    backend = TorchBackend(load_network(model.configuration.network, model.weights), "bf16+fp32")
    line = line_canvas(np.full((32, 500, 3), 255, np.uint8))
    assert (line.inked, line.chunks) == (2, 3)
    exact = []
    monkeypatch.setattr(backend, "padding_columns", lambda: two_chunks({}).each(lambda array: array[0]))
    monkeypatch.setattr(backend, "_checked", lambda grey, _: exact.append(grey) or two_chunks({}).each(take(grey)))
    inked = np.stack([np.full((32, 300), index, np.float32) for index in range(2)])
    (path,) = backend.paths([line], inked, two_chunks(contested))
    assert [int(chunk[0, 0]) for grey in exact for chunk in grey] == checked
    kept = {chunk: slice(69) if chunk == 0 else slice(69, 132) for chunk in (0, 1)}
    assert all(not path.ids[kept[chunk]].any() for chunk in checked)  # read as blank in fp32


def take(grey: np.ndarray):
    return lambda array: array[: len(grey)]


@pytest.mark.parametrize("chunks", [1, 2, 3, 7])
def test_each_column_belongs_to_the_chunk_that_it_was_kept_of(chunks):
    owners = [chunk for chunk in range(chunks) for _ in range(75)[kept_columns(chunk, chunks)]]
    assert [chunk_of_column(column, chunks) for column in range(canvas_columns(chunks))] == owners


def test_rivals_are_near_and_their_best_is_likely():
    logits = torch.full((1, 4, 300), -9.0)
    logits[0, 0, [7, 8]] = torch.tensor([10.0, 9.95])
    logits[0, 1, [7, 8]] = torch.tensor([10.0, 9.85])  # farther than 1 % of 10
    logits[0, 2] = 5.0
    logits[0, 2, [7, 8]] = torch.tensor([7.0, 6.99])  # e^2 / (2 e^2 + 298) is 2 %
    logits[0, 3, [7, 8, 9]] = torch.tensor([3.0, 3.0, 3.0])
    ids, _, rivals = best_columns(logits, 0.01)
    assert ids.tolist() == [[7, 7, 7, 7]] and rivals.tolist() == [[8, 7, 7, 8]]


def test_the_two_best_are_those_of_sorting_the_first_of_equal_ones():
    random = np.random.default_rng(0)
    scores = torch.from_numpy(random.integers(0, 40, (3000, 3 * BLOCK)).astype(np.float32))  # many ties
    scores[:, random.integers(0, 3 * BLOCK)] = 41.0
    top, best, runner_up, second = (found[:, 0] for found in two_best(scores.clone()))
    values, order = scores.sort(dim=-1, descending=True, stable=True)
    assert torch.equal(torch.stack([top, runner_up], -1), values[:, :2])
    assert torch.equal(torch.stack([best, second], -1), order[:, :2])


def test_contested_columns_are_settled_by_the_head_in_fp32():
    head = torch.nn.Linear(2, 4)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0], [1.001, 0.0], [0.0, 1.0], [0.0, 2.0]]))
        head.bias.copy_(torch.tensor([0.0, 0.0, 0.5, 0.0]))
        columns = torch.tensor([[[8.0, 0.0], [8.0, 0.0], [0.0, 1.0], [8.0, 8.0]]])  # logits 8, 8.008, .5 | 1.5, 2 | ...
        ids, rivals = torch.tensor([[0, 1, 2, 3]]), torch.tensor([[1, 0, 3, 3]])
        settle(ids, rivals, columns, head, 0.01)
    assert ids.tolist() == [[1, 1, 3, 3]] and rivals.tolist() == [[0, 0, 3, 3]]  # 1.5 is 25 % from 2


def test_what_bf16_cannot_tell_apart_is_settled_while_it_is_read(tiny_model_dir):
    """Each class has a twin with a slightly greater logit, which bf16 rounds to the same."""
    model = ModelDir.open(tiny_model_dir)
    network = load_network(model.configuration.network, model.weights)
    with torch.no_grad():
        head = network.vitstr.head
        head.weight.mul_(4)
        head.weight[1::2], head.bias[1::2] = head.weight[::2], head.bias[::2] + 1e-3
    backend = TorchBackend(network, "bf16+fp32")
    grey = np.random.default_rng(0).random((4, 32, 300), np.float32)
    columns, logits = backend._reading_network(torch.bfloat16)(torch.from_numpy(grey[:, None]))
    exact = network.classify(columns.float()).argmax(-1).numpy()
    assert (logits.argmax(-1).numpy() != exact).mean() > 0.5  # or there was nothing to settle
    assert (backend.piece_columns(grey).ids == exact).mean() > 0.95  # but for columns that nothing is likely in


@pytest.fixture(scope="module")
def canvases():
    return [line_canvas(load_image(line)) for line in unsure_lines(240)]


def test_the_texts_are_those_of_fp32_and_few_chunks_are_computed_twice(canvases):
    readers = {
        precision: Recognizer.from_pretrained(default_model_dir(), "torch", precision, device="cpu")
        for precision in ("fp32", "bf16", "bf16+fp32")
    }
    texts = {precision: [line.text for line in reader.read_canvases(canvases)] for precision, reader in readers.items()}
    differ = {
        precision: sum(a != b for a, b in zip(texts[precision], texts["fp32"])) for precision in ("bf16", "bf16+fp32")
    }
    assert differ["bf16"] >= 5  # or there was little to mend
    assert differ["bf16+fp32"] <= 2  # of 240 lines that no one could be sure of; of usual ones none
    backend = readers["bf16+fp32"]._backend
    assert 0 < backend.checked < 0.6 * backend.computed


def test_fp32_is_asked_for_the_columns_with_rivals_alone(tiny_model_dir):
    model = ModelDir.open(tiny_model_dir)
    backend = TorchBackend(load_network(model.configuration.network, model.weights), "bf16+fp32")
    grey = np.random.default_rng(0).random((11, 32, 300), np.float32)  # more than are checked at once
    with torch.inference_mode():
        logits = backend.network.classify(backend.network.encode(torch.from_numpy(grey[:, None])))
        expected = [tensor.numpy() for tensor in best_columns(logits)[:2]]
    ids, rivals = np.zeros((2, 11, 75), np.int64)
    rivals[:, 5:40:7] = 1
    checked = backend._checked(grey, ColumnPath(ids, np.full(ids.shape, -9, np.float32), rivals))
    contested = ids != rivals
    assert (checked.ids[contested] == expected[0][contested]).all() and np.ptp(expected[0][contested]) > 0
    np.testing.assert_allclose(checked.log_probs[contested], expected[1][contested], atol=1e-4)
    assert not checked.ids[~contested].any() and (checked.log_probs[~contested] == -9).all()
    assert checked.rivals is checked.ids and not ids.any() and backend.checked == 11
