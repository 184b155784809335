"""bf16 with fp32 where it leaves the text in doubt: which columns decide, and that the texts are those of fp32."""

import itertools

import numpy as np
import pytest
import torch
from conftest import unsure_lines

from ms_ocr_handwritten import Recognizer, default_model_dir
from ms_ocr_handwritten.backends.columns import BLOCK, best_columns, two_best
from ms_ocr_handwritten.backends.doubt import LONGEST_DOUBT, in_doubt, settle
from ms_ocr_handwritten.ctc import collapse
from ms_ocr_handwritten.image import line_canvas, load_image


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
    assert in_doubt(np.array(ids), np.array(rivals)) is doubt


def test_doubt_is_there_just_where_some_choice_of_rivals_changes_the_text():
    random = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        ids = random.integers(0, 3, 9)
        rivals = np.where(random.random(9) < 0.3, random.integers(0, 3, 9), ids)
        contested = ids != rivals
        if max((len(list(run)) for open, run in itertools.groupby(contested) if open), default=0) > LONGEST_DOUBT:
            continue
        expected = len({text(path) for path in itertools.product(*zip(ids, rivals))}) > 1
        assert in_doubt(ids, rivals) is expected, (ids, rivals)
        found.append(expected)
    assert 0.2 < np.mean(found) < 0.9


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


@pytest.fixture(scope="module")
def canvases():
    return [line_canvas(load_image(line)) for line in unsure_lines(120)]


def test_the_texts_are_those_of_fp32_and_few_chunks_are_computed_twice(canvases):
    readers = {
        precision: Recognizer.from_pretrained(default_model_dir(), "torch", precision, device="cpu")
        for precision in ("fp32", "bf16", "bf16+fp32")
    }
    texts = {precision: [line.text for line in reader.read_canvases(canvases)] for precision, reader in readers.items()}
    assert texts["bf16+fp32"] == texts["fp32"]
    assert texts["bf16"] != texts["fp32"]  # or there was nothing to mend
    backend = readers["bf16+fp32"]._backend
    assert 0 < backend.checked < 0.6 * backend.computed
