"""Candidates of logits of every offset, precision and number; what is done to both of their arrays."""

import numpy as np
import pytest
import torch

from ms_ocr_handwritten.decoding.candidates import COUNT, Candidates, Wanted, candidates

LOGITS = np.random.default_rng(1).normal(0, 3, (40, 701))
LOGITS[:9, 0] += 40  # quiet columns


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("count", [1, COUNT, 600])
def test_as_many_as_wanted_by_falling_probability(dtype, count):
    """Against PyTorch's softmax of the same numbers in double precision."""
    logits = LOGITS.astype(dtype)
    found = candidates(logits, Wanted(count))
    expected = torch.from_numpy(logits.astype(np.float64)).log_softmax(-1)
    probable = expected[9:, 1:].topk(count).values
    assert found.log_probs.shape == found.ids.shape == (40, 1 + count)
    assert (found.log_probs.dtype, found.ids.dtype) == (np.float32, np.int32)
    np.testing.assert_allclose(found.log_probs[:, 0], expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(found.log_probs[9:, 1:], probable, atol=1e-5)
    named = expected[9:].gather(1, torch.from_numpy(found.ids[9:]).long())
    np.testing.assert_allclose(found.log_probs[9:], named, atol=1e-5)
    assert all(len(set(row)) == 1 + count for row in found.ids[9:].tolist())
    assert not found.ids[:, 0].any() and not found.ids[:9].any() and np.isneginf(found.log_probs[:9, 1:]).all()


@pytest.mark.parametrize("offset", [-3e5, -1000, 1000, 3e5])
def test_what_is_added_to_all_logits_of_a_column_changes_nothing(offset):
    shifts = np.array([[0], [offset], [offset / 2]])
    plain = (LOGITS[-3:] * 4).round() / 4  # so that the sums are exact
    found, expected = (candidates(logits, Wanted(5)) for logits in (plain + shifts, plain))
    np.testing.assert_allclose(found.log_probs, expected.log_probs, rtol=1e-6)
    assert (np.sort(found.ids) == np.sort(expected.ids)).all() and (found.ids[:, 0] == 0).all()


def test_a_change_of_candidates_is_one_of_both_arrays():
    first, second = (candidates(LOGITS[rows], Wanted(3)) for rows in (slice(5), slice(5, 40)))
    whole, joined = candidates(LOGITS, Wanted(3)), first.each(lambda *arrays: np.concatenate(arrays), second)
    assert isinstance(joined, Candidates)
    assert (joined.ids == whole.ids).all() and (joined.log_probs == whole.log_probs).all()
    reversed_ = whole.each(lambda array: array[::-1])
    assert (reversed_.ids == whole.ids[::-1]).all() and (reversed_.log_probs == whole.log_probs[::-1]).all()
