"""The CTC loss against the enumeration of all alignments, its gradient against PyTorch's log_softmax and ctc_loss."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from ms_ocr_handwritten.training import ctc_loss as own
from ms_ocr_handwritten.training.ctc_loss import ROWS


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [id for id, _ in itertools.groupby(path) if id != 0]


def enumerated(logits: torch.Tensor, label: list[int]) -> float:
    """-log of the sum of the probabilities of all paths that collapse to `label`, in float64; logits (T, C)."""
    probabilities = logits.double().softmax(-1)
    total = sum(
        math.prod(probabilities[t, id].item() for t, id in enumerate(path))
        for path in itertools.product(range(logits.shape[1]), repeat=len(logits))
        if collapsed(path) == label
    )
    return -math.log(total) if total else math.inf


def ctc_loss(logits: torch.Tensor, *rest) -> torch.Tensor:
    """The loss of given logits (P, C): a head that leaves columns as they are."""
    head = torch.nn.Linear(logits.shape[1], logits.shape[1], dtype=logits.dtype).requires_grad_(False)
    head.weight.copy_(torch.eye(logits.shape[1]))
    head.bias.zero_()
    return own.ctc_loss(logits, head, *rest)


def plain(lines: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Columns and lengths of lines that share nothing: line b has the rows b * length, b * length + 1, ..."""
    return torch.arange(lines * length).view(lines, length), torch.full((lines,), length)


def reference(logits, columns, lengths, labels, weights):
    """Losses (B,) and gradient (P, C) of sum(weights * loss) by PyTorch alone, in float64; infinite lines left out."""
    leaf = logits.detach().double().requires_grad_()
    losses = []
    for row, length, label in zip(columns, lengths.tolist(), labels):
        log_probs = leaf[row[:length]].log_softmax(-1)[:, None]
        losses.append(
            F.ctc_loss(
                log_probs,
                torch.tensor([label], dtype=torch.int64).view(1, -1),
                torch.tensor([length]),
                torch.tensor([len(label)]),
                reduction="none",
            )[0]
        )
    losses = torch.stack(losses)
    finite = losses.isfinite()
    if finite.any():
        (losses * weights)[finite].sum().backward()
    return losses.detach(), torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def ours(logits, columns, lengths, labels, weights):
    leaf = logits.detach().requires_grad_()
    losses = ctc_loss(leaf, columns, lengths, labels)
    torch.where(losses.isfinite(), losses * weights, 0.0).sum().backward()
    return losses.detach(), leaf.grad


def assert_same(logits, columns, lengths, labels, weights=None, tolerance=1e-5):
    weights = torch.linspace(0.5, 1.5, len(labels)) if weights is None else weights
    expected_losses, expected = reference(logits, columns, lengths, labels, weights)
    losses, gradient = ours(logits, columns, lengths, labels, weights)
    assert losses.dtype == torch.float32 and gradient.dtype == logits.dtype
    torch.testing.assert_close(losses.double(), expected_losses, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradient.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("label", [[], [1], [2], [1, 2], [2, 1], [1, 1], [1, 1, 2], [1, 2, 1], [1, 2, 2], [3, 1, 2, 3]])
def test_loss_is_the_sum_over_all_alignments(label):
    torch.manual_seed(len(label))
    logits = 2 * torch.randn(5, 4)
    (loss,) = ctc_loss(logits, *plain(1, 5), [label])
    assert loss.item() == pytest.approx(enumerated(logits, label), abs=1e-5)


def test_probabilities_of_all_labels_add_up_to_one():
    torch.manual_seed(0)
    logits = torch.randn(3, 3)
    labels = [list(label) for n in range(4) for label in itertools.product((1, 2), repeat=n)]
    columns, lengths = logits.new_zeros(len(labels), 3, dtype=torch.int64), torch.full((len(labels),), 3)
    columns[:] = torch.arange(3)
    losses = ctc_loss(logits, columns, lengths, labels)
    assert torch.exp(-losses).sum().item() == pytest.approx(1.0, abs=1e-6)
    assert losses[labels.index([1, 1, 1])] == math.inf


def test_gradient_equals_autograd():
    torch.manual_seed(1)
    assert_same(torch.randn(3 * 12, 50), *plain(3, 12), [[7, 3, 49], [1, 2, 3, 4, 5, 6], [9, 9, 9]])


def test_gradient_over_more_rows_than_are_handled_at_a_time():
    torch.manual_seed(2)
    lines = ROWS // 12 + 2
    labels = [[1, 8, 8, 3], [5], []] * lines
    assert_same(torch.randn(12 * lines, 9), *plain(lines, 12), labels[:lines])


def test_rows_shared_by_lines_and_within_a_line():
    torch.manual_seed(3)
    columns = torch.tensor([[0, 1, 2, 3, 6, 6, 6, 6], [4, 5, 2, 6, 6, 6, 6, 1], [0, 0, 0, 0, 0, 0, 0, 0]])
    assert_same(torch.randn(8, 6), columns, torch.tensor([8, 8, 8]), [[1, 2, 2], [5, 1], [3]])


def test_row_used_by_no_line_has_no_gradient():
    torch.manual_seed(4)
    _, gradient = ours(torch.randn(6, 5), torch.tensor([[0, 1, 3, 4]]), torch.tensor([4]), [[2, 1]], torch.ones(1))
    assert gradient[[2, 5]].abs().max() == 0 and gradient[[0, 1, 3, 4]].abs().sum(1).min() > 0


def test_lines_of_different_lengths_ignore_what_lies_behind_their_end():
    torch.manual_seed(5)
    columns = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0], [8, 9, 10, 0, 0]])
    logits, lengths, labels = torch.randn(11, 7), torch.tensor([5, 2, 3]), [[1, 2, 3], [4], [6, 6]]
    assert_same(logits, columns, lengths, labels)
    _, gradient = ours(logits, columns, lengths, labels, torch.ones(3))
    assert gradient[0].abs().max() == 0  # row 0 stands behind the ends and in no line


def test_repeated_characters_count_once_each():
    torch.manual_seed(6)
    assert_same(torch.randn(20, 5), *plain(2, 10), [[2, 2, 2, 2, 2], [3, 1, 3, 1, 3, 3]])


def test_empty_label_wants_blanks():
    torch.manual_seed(7)
    logits = torch.randn(8, 5)
    assert_same(logits, *plain(2, 4), [[], [1]])
    losses = ctc_loss(logits, *plain(2, 4), [[], [1]])
    assert losses[0].item() == pytest.approx(-logits[:4].log_softmax(-1)[:, 0].sum().item(), abs=1e-5)
    assert_same(logits, *plain(2, 4), [[], []])


def test_unalignable_label_is_infinite_and_teaches_nothing():
    torch.manual_seed(8)
    logits, (columns, lengths) = torch.randn(12, 6), plain(3, 4)
    labels = [[1, 2], [3, 3, 3], [5]]  # the second needs five columns
    losses, gradient = ours(logits, columns, lengths, labels, torch.ones(3))
    assert losses[1] == math.inf and gradient[4:8].abs().max() == 0 and gradient.isfinite().all()
    others, expected = ours(logits, columns[[0, 2]], lengths[[0, 2]], [labels[0], labels[2]], torch.ones(2))
    assert torch.equal(losses[[0, 2]], others) and torch.equal(gradient, expected)


def test_unalignable_label_on_shared_rows_leaves_the_others_their_gradient():
    torch.manual_seed(9)
    logits, columns = torch.randn(4, 5), torch.arange(4).repeat(2, 1)
    _, gradient = ours(logits, columns, torch.tensor([4, 4]), [[1, 2], [1] * 4], torch.ones(2))
    _, alone = ours(logits, columns[:1], torch.tensor([4]), [[1, 2]], torch.ones(1))
    torch.testing.assert_close(gradient, alone)


def test_infinite_loss_summed_by_the_caller_gives_no_nan():
    logits = torch.zeros(4, 3, requires_grad=True)
    ctc_loss(logits, *plain(2, 2), [[1, 1], [1]]).sum().backward()
    assert logits.grad.isfinite().all() and logits.grad[:2].abs().max() == 0 and logits.grad[2:].abs().max() > 0


def test_the_same_line_twice_has_twice_the_gradient():
    torch.manual_seed(10)
    logits, columns = torch.randn(5, 6), torch.arange(5)[None]
    _, once = ours(logits, columns, torch.tensor([5]), [[2, 4]], torch.ones(1))
    _, twice = ours(logits, columns.repeat(2, 1), torch.tensor([5, 5]), [[2, 4]] * 2, torch.ones(2))
    torch.testing.assert_close(twice, 2 * once)


def test_bfloat16_logits():
    torch.manual_seed(11)
    columns = torch.tensor([[0, 1, 2, 3, 8, 8], [4, 5, 6, 7, 8, 8]])
    assert_same(torch.randn(9, 30).bfloat16(), columns, torch.tensor([6, 6]), [[1, 2], [3, 29, 29]], tolerance=4e-3)


def test_bfloat16_keeps_small_gradients():
    """Near the optimum softmax and posterior are almost equal; their difference must not drown in rounding."""
    logits = torch.zeros(4, 20)
    for row, id in enumerate((0, 7, 0, 0)):
        logits[row, id] = 9.0
    logits, columns = logits.bfloat16(), torch.tensor([[0, 1, 2] + [3] * 60] * 16)
    weights = torch.full((16,), 1 / 16)
    _, expected = reference(logits, columns, torch.full((16,), 63), [[7]] * 16, weights)
    _, gradient = ours(logits, columns, torch.full((16,), 63), [[7]] * 16, weights)
    assert expected.abs().max() < 0.15
    torch.testing.assert_close(gradient.double(), expected, rtol=0.01, atol=1e-5)


def test_without_gradient_the_loss_is_the_same():
    torch.manual_seed(12)
    logits, (columns, lengths) = torch.randn(14, 9), plain(2, 7)
    with torch.no_grad():
        without = ctc_loss(logits, columns, lengths, [[1, 8], [2, 2]])
    assert torch.equal(without, ctc_loss(logits.requires_grad_(), columns, lengths, [[1, 8], [2, 2]]).detach())


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("frozen", ["nothing", "columns", "head"])
def test_gradients_of_columns_and_head_are_those_of_the_logits_written_out(autocast, frozen):
    torch.manual_seed(13)
    lines, head = ROWS // 12 + 2, torch.nn.Linear(16, 40)
    (columns, lengths), labels = plain(lines, 12), ([[1, 8, 8, 3], [39], []] * lines)[:lines]
    encoded = torch.randn(12 * lines, 16)

    def gradients(loss):
        leaf = encoded.clone().requires_grad_(frozen != "columns")
        head.zero_grad()
        head.requires_grad_(frozen != "head")
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss(leaf).mean().backward()
        return [parameter.grad for parameter in (leaf, head.weight, head.bias) if parameter.requires_grad]

    def written_out(leaf):
        log_probs = head(leaf).float().log_softmax(-1)[columns].transpose(0, 1)
        targets = torch.tensor([id for label in labels for id in label])
        return F.ctc_loss(log_probs, targets, lengths, torch.tensor([len(label) for label in labels]), reduction="none")

    expected = gradients(written_out)
    for actual, wanted in zip(gradients(lambda leaf: own.ctc_loss(leaf, head, columns, lengths, labels)), expected):
        assert actual.dtype == torch.float32
        error = (actual - wanted).norm() / wanted.norm()
        assert error < (0.01 if autocast else 1e-5)
