"""The queue that computes in batches what comes one by one."""

import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError

import pytest

from ms_ocr_handwritten.errors import BusyError, ImageError
from ms_ocr_handwritten.serve.batching import BatchQueue


class Gate:
    """Computes tenfold, notes its batches, and holds the first until `open` is set."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.begun.set()
        assert self.open.wait(10)
        if 13 in items:
            raise ImageError("13 cannot be computed")
        return [10 * item for item in items]


@pytest.fixture
def gate():
    return Gate()


def opened(gate: Gate, **options) -> BatchQueue:
    return BatchQueue(gate, **{"name": "numbers", "capacity": 8, "most": 4} | options)


def put(queue: BatchQueue, *items: int) -> list:
    places = [queue.reserve() for _ in items]
    for place, item in zip(places, items):
        queue.put(place, item)
    return places


def test_what_comes_while_a_batch_is_computed_is_the_next_batch(gate):
    queue = opened(gate)
    places = put(queue, 1)
    assert gate.begun.wait(10)
    places += put(queue, 2, 3, 4, 5, 6)
    gate.open.set()
    assert [place.result(10) for place in places] == [10, 20, 30, 40, 50, 60]
    assert gate.batches == [[1], [2, 3, 4, 5], [6]]
    queue.close()


def test_a_batch_costs_no_more_than_is_full_but_for_a_single_item(gate):
    queue = opened(gate, full=10, cost=lambda item: item)
    places = put(queue, 1)
    assert gate.begun.wait(10)
    places += put(queue, 6, 4, 3, 8, 25, 2)
    gate.open.set()
    assert [place.result(10) for place in places] == [10, 60, 40, 30, 80, 250, 20]
    assert gate.batches == [[1], [6, 4], [3], [8], [25], [2]]
    queue.close()


def test_the_first_waits_for_others_but_not_longer_than_it_may(gate):
    gate.open.set()
    queue = opened(gate, wait=0.2)
    start = time.monotonic()
    (first,) = put(queue, 1)
    time.sleep(0.02)
    (second,) = put(queue, 2)
    assert (first.result(10), second.result(10)) == (10, 20)
    assert time.monotonic() - start >= 0.2
    assert gate.batches == [[1, 2]]
    for place in put(queue, 3, 4, 5, 6):  # full: waits for nobody
        place.result(10)
    assert gate.batches[1:] == [[3, 4, 5, 6]]
    queue.close()


def test_a_batch_that_is_just_full_waits_for_nobody(gate):
    gate.open.set()
    queue = opened(gate, wait=60, full=5, cost=lambda item: item)
    assert [place.result(10) for place in put(queue, 2, 3)] == [20, 30]
    assert gate.batches == [[2, 3]]
    queue.close()


def test_places_are_bounded_and_taken_before_the_item_is_there(gate):
    queue = opened(gate, capacity=2)
    first, second = queue.reserve(), queue.reserve()
    with pytest.raises(BusyError, match="queue of numbers has all its 2 places taken; try again in 1 s") as caught:
        queue.reserve()
    assert caught.value.retry_after == 1
    second.cancel()
    assert queue.taken == 1
    third = queue.reserve()
    gate.open.set()
    queue.put(third, 3)
    queue.put(first, 1)
    assert (first.result(10), third.result(10)) == (10, 30)
    queue.close()
    assert queue.taken == 0


def test_retry_after_is_as_long_as_the_places_take():
    queue = BatchQueue(lambda items: time.sleep(0.6) or items, name="slow", capacity=4)
    (place,) = put(queue, 1)
    place.result(10)
    for _ in range(4):
        queue.reserve()
    seconds = 0
    while seconds < 3:  # the queue's thread may still have to note it
        with pytest.raises(BusyError) as caught:
            queue.reserve()
        seconds = caught.value.retry_after
    assert seconds == 3  # of 4 times 0.6 s


def test_what_was_given_up_is_not_computed(gate):
    queue = opened(gate)
    put(queue, 1)
    assert gate.begun.wait(10)
    places = put(queue, 2, 3)
    assert places[0].cancel()
    gate.open.set()
    assert places[1].result(10) == 30
    assert gate.batches == [[1], [3]]
    with pytest.raises(CancelledError):
        places[0].result()
    queue.close()


def test_what_was_given_up_takes_no_place_in_a_batch(gate):
    """Before its item came, or while it waited; full is the number of items where they have no cost."""
    queue = opened(gate, most=4, full=3)
    places = put(queue, 1)
    assert gate.begun.wait(10)
    early, late = queue.reserve(), queue.reserve()
    assert early.cancel()
    queue.put(early, 2)
    queue.put(late, 3)
    places += put(queue, 4)
    assert late.cancel()
    places += put(queue, 5, 6, 7)
    gate.open.set()
    assert [place.result(10) for place in places] == [10, 40, 50, 60, 70]
    assert gate.batches == [[1], [4, 5, 6], [7]]
    queue.close()


def test_batches_are_told_as_they_are_computed(gate):
    told: list[tuple[int, float]] = []
    queue = opened(gate, computed=lambda items, seconds: told.append((items, seconds)))
    places = put(queue, 1)
    assert gate.begun.wait(10)
    places += put(queue, 2, 3, 4)
    time.sleep(0.1)
    gate.open.set()
    for place in places:
        place.result(10)
    queue.close()
    assert [items for items, _ in told] == [1, 3] and 0.1 <= told[0][1] < 10 and 0 <= told[1][1] < 1


def test_close_ends_a_queue_that_has_nothing_to_do(gate):
    queue = opened(gate)
    time.sleep(0.1)  # its thread waits
    closing = threading.Thread(target=queue.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive() and not queue.alive and gate.batches == []


def test_close_waits_for_a_place_until_it_is_given_up(gate):
    queue = opened(gate)
    place = queue.reserve()
    closing = threading.Thread(target=queue.close, daemon=True)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    assert place.cancel()
    closing.join(10)
    assert not closing.is_alive() and not queue.alive


def test_a_queue_that_nobody_closes_holds_no_process():
    script = "from ms_ocr_handwritten.serve.batching import BatchQueue; BatchQueue(list, name='idle', capacity=1)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


def test_one_that_cannot_be_computed_harms_no_other_in_its_batch(gate):
    queue = opened(gate)
    places = put(queue, 1)
    assert gate.begun.wait(10)
    places += put(queue, 12, 13, 14)
    gate.open.set()
    with pytest.raises(ImageError, match="13 cannot be computed"):
        places[2].result(10)
    assert [places[index].result(10) for index in (0, 1, 3)] == [10, 120, 140]
    assert put(queue, 15)[0].result(10) == 150
    queue.close()


def test_close_finishes_what_has_a_place_and_takes_no_more(gate):
    queue = opened(gate, wait=60)
    (waiting,) = put(queue, 1)
    prepared = queue.reserve()
    closing = threading.Thread(target=queue.close)
    closing.start()
    assert gate.begun.wait(10)  # at once, without waiting for others
    with pytest.raises(BusyError, match="is stopping"):
        queue.reserve()
    gate.open.set()
    assert waiting.result(10) == 10
    assert closing.is_alive()
    queue.put(prepared, 2)
    assert prepared.result(10) == 20
    closing.join(10)
    assert not closing.is_alive() and not queue.alive
