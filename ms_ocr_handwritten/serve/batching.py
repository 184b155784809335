"""Batch computation for items that arrive one by one from many threads: a bounded queue with a worker thread.

    place = queue.reserve()  # raises BusyError if there is none
    queue.put(place, item)   # later, from any thread
    place.result()           # the result for the item

A place is occupied from `reserve` until its result, so items in preparation count as well. It is a `Future`: whoever
prepares the item may set an exception, whoever waits for it may cancel it.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Generic, TypeVar

from ..errors import BusyError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Item, Result]):
    place: "Future[Result]"
    item: Item
    since: float  # s of time.monotonic


class BatchQueue(Generic[Item, Result]):
    """Computes items in batches, in order of arrival; at most `capacity` places are occupied."""

    def __init__(
        self,
        compute: Callable[[list[Item]], list[Result]],
        *,
        name: str,
        capacity: int,
        most: int = 1,
        full: float = math.inf,
        cost: Callable[[Item], float] = lambda _: 1,
        wait: float = 0.0,
        computed: Callable[[int, float], object] = lambda items, seconds: None,
    ) -> None:
        """
        Args:
            compute: items to as many results, called in the queue's thread. If it raises, each item of the batch is
                computed alone, and an item that raises again gets the exception as its result.
            name: of the thread, and of the queue in messages.
            capacity: number of places.
            most: maximum number of items per batch.
            full: cost at which a batch waits for no further items; also its maximum cost, except for a single item.
            cost: of an item.
            wait: s that the first item of a batch waits for others at most.
            computed: called with the number of items and the duration in seconds of each batch.
        """
        self.capacity, self._compute, self._name = capacity, compute, name
        self._most, self._full, self._cost, self._wait, self._computed = most, full, cost, wait, computed
        self._changed = Condition()
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._taken, self._closed, self._seconds_an_item = 0, False, 0.0
        self._thread = Thread(target=self._run, name=f"ms-ocr-{name}", daemon=True)
        self._thread.start()

    @property
    def taken(self) -> int:
        """Number of occupied places."""
        return self._taken

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def reserve(self) -> "Future[Result]":
        """A place for an item. Raises BusyError, which says after how many seconds to retry."""
        with self._changed:
            if self._closed or self._taken >= self.capacity:
                seconds = max(1, math.ceil(self._taken * self._seconds_an_item))
                reason = "is stopping" if self._closed else f"has all its {self.capacity} places taken"
                raise BusyError(f"the queue of {self._name} {reason}; try again in {seconds} s", seconds)
            self._taken += 1
        place: Future[Result] = Future()
        place.add_done_callback(self._leave)
        return place

    def put(self, place: "Future[Result]", item: Item) -> None:
        """Submit `item` for the place that was reserved for it."""
        with self._changed:
            if not place.cancelled():
                self._waiting.append(_Waiting(place, item, time.monotonic()))
                self._changed.notify_all()

    def close(self) -> None:
        """Reject new reservations, and return when all occupied places are free."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _leave(self, place: "Future[Result]") -> None:
        with self._changed:
            self._taken -= 1
            if place.cancelled():  # free its item, which may be large
                self._waiting = deque(one for one in self._waiting if one.place is not place)
            self._changed.notify_all()

    def _run(self) -> None:
        while batch := self._next_batch():
            start = time.monotonic()
            self._settle([one for one in batch if one.place.set_running_or_notify_cancel()])
            seconds = time.monotonic() - start
            self._seconds_an_item = seconds / len(batch)
            self._computed(len(batch), seconds)

    def _next_batch(self) -> list[_Waiting[Item, Result]]:
        """The next batch, once full or once the first item has waited; empty when the queue is closed and drained."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or (self._closed and not self._taken))
                if not self._waiting:
                    return []
                batch, is_full = self._first_items()
                left = self._waiting[0].since + self._wait - time.monotonic()
                if is_full or left <= 0 or self._closed:
                    for _ in batch:
                        self._waiting.popleft()
                    return batch
                self._changed.wait(left)

    def _first_items(self) -> tuple[list[_Waiting[Item, Result]], bool]:
        """The items that fit into a batch, and whether it is full."""
        batch: list[_Waiting[Item, Result]] = []
        total = 0.0
        for one in self._waiting:
            cost = self._cost(one.item)
            if batch and total + cost > self._full:
                return batch, True
            batch.append(one)
            total += cost
            if len(batch) == self._most or total >= self._full:
                return batch, True
        return batch, False

    def _settle(self, batch: list[_Waiting[Item, Result]]) -> None:
        if not batch:
            return
        try:
            results = self._compute([one.item for one in batch])
        except Exception as error:  # passed on to those who wait; this thread goes on serving the others
            if len(batch) == 1:
                batch[0].place.set_exception(error)
            else:
                for one in batch:
                    self._settle([one])
        else:
            for one, result in zip(batch, results):
                one.place.set_result(result)
