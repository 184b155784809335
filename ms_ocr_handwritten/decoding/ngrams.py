"""Counts of character n-grams of any amount of text, block by block, as sorted tables.

A line of text is `<s> c1 c2 ... </s>`. What is counted are its windows of `order` tokens; windows that the beginning of
the line cuts short are filled with VOID. From them follow the counts of Kneser and Ney for all lower orders.

Notation: N the order of the model, k of a table, M n-grams of a table, V tokens.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import LanguageModelError

BEGIN, END, UNKNOWN, SPACE = "<s>", "</s>", "<unk>", "<space>"
VOID_ID, BEGIN_ID, END_ID, UNKNOWN_ID = 0, 1, 2, 3
MARKS = ("<void>", BEGIN, END, UNKNOWN)  # tokens of the first ids; characters follow
BITS = 16  # of a token
LOW_TOKENS = 64 // BITS  # tokens in the low half of a key
MAX_ORDER = 2 * LOW_TOKENS
BLOCK = 1 << 21  # tokens counted at a time


def token_of(character: str) -> str:
    """How a language model writes a character: itself, but the space, which ends tokens, as SPACE."""
    return SPACE if character == " " else character


@dataclass(frozen=True)
class Grams:
    """Different n-grams of one order, in order of their tokens: `rows` uint16 (M, k), `counts` int64 (M,)."""

    rows: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


class Tokens:
    """Characters as ids: those given, else all that come; ids are 16 bits."""

    def __init__(self, characters: Iterable[str] = ()) -> None:
        """characters: all that the model shall know, the others are UNKNOWN; none for all of the text."""
        self.names = [*MARKS, *map(token_of, dict.fromkeys(characters))]
        self.closed = len(self.names) > len(MARKS)
        self.ids = {name: index for index, name in enumerate(self.names)}

    def encode(self, text: str) -> list[int]:
        """Raises LanguageModelError where there are more different characters than 16 bits can name."""
        if not self.closed:
            for character in text:
                name = token_of(character)
                if name not in self.ids:
                    self.ids[name] = len(self.names)
                    self.names.append(name)
            if len(self.names) > 1 << BITS:
                raise LanguageModelError(
                    f"the text holds more than {1 << BITS} different characters; list the relevant ones with --vocab"
                )
        known = self.ids.get
        return [known(SPACE if character == " " else character, UNKNOWN_ID) for character in text]


def count_windows(lines: Iterable[str], tokens: Tokens, order: int) -> Grams:
    """All different windows of `order` tokens. Memory grows with their number, not with that of the lines.

    Raises LanguageModelError if order is not in 2 to MAX_ORDER, or there is no text.
    """
    if not 2 <= order <= MAX_ORDER:
        raise LanguageModelError(f"the order is {order}; 2 to {MAX_ORDER} expected")
    runs: list[_Counted] = []
    for block in _blocks(lines, tokens, order):
        ends = np.flatnonzero(block > BEGIN_ID)  # a window belongs to the token at its end
        counted = _counted(*_keys(block, ends, order), np.ones(len(ends), np.int64))
        while runs and len(runs[-1].counts) < 2 * len(counted.counts):  # so that each n-gram is merged few times
            counted = _merged(runs.pop(), counted)
        runs.append(counted)
    if not runs:
        raise LanguageModelError("there is no text to count; give files of plain text, one sentence per line")
    while len(runs) > 1:
        runs.append(_merged(runs.pop(), runs.pop()))
    return Grams(_rows(runs[0].high, runs[0].low, order), runs[0].counts)


def lower_order(grams: Grams, windows: Grams) -> Grams:
    """The n-grams one token shorter, with the number of different tokens before each.

    `windows` are all, of the full order. What begins with BEGIN has nothing before it, and keeps its count in the text.
    """
    shorter = grams.rows.shape[1] - 1
    order = windows.rows.shape[1]
    rows, counts = [grams.rows[:, 1:]], [np.ones(len(grams), np.int64)]
    initial = (windows.rows[:, order - shorter] == BEGIN_ID) & (windows.rows[:, order - shorter - 1] == VOID_ID)
    rows.append(windows.rows[initial, order - shorter :])
    counts.append(windows.counts[initial])
    stacked = np.concatenate(rows)
    found = _counted(*_packed(stacked), np.concatenate(counts))
    return Grams(_rows(found.high, found.low, shorter), found.counts)


def full_order(windows: Grams) -> Grams:
    """The windows that the beginning of a line does not cut short."""
    full = windows.rows[:, 0] != VOID_ID
    return Grams(windows.rows[full], windows.counts[full])


@dataclass(frozen=True)
class _Counted:
    """Different keys, sorted; a key holds the tokens of a window, 16 bits each, the last one lowest."""

    high: np.ndarray  # uint64
    low: np.ndarray  # uint64
    counts: np.ndarray  # int64


def _blocks(lines: Iterable[str], tokens: Tokens, order: int) -> Iterator[np.ndarray]:
    before = [VOID_ID] * (order - 2) + [BEGIN_ID]
    block: list[int] = []
    for line in lines:
        block += before
        block += tokens.encode(line)
        block.append(END_ID)
        if len(block) >= BLOCK:
            yield np.array(block, np.uint64)
            block = []
    if block:
        yield np.array(block, np.uint64)


def _keys(block: np.ndarray, ends: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys of the windows of a block that end at `ends`."""
    high, low = np.zeros(len(ends), np.uint64), np.zeros(len(ends), np.uint64)
    for back in range(order):
        half, shift = (low, back) if back < LOW_TOKENS else (high, back - LOW_TOKENS)
        half |= block[ends - back] << np.uint64(BITS * shift)
    return high, low


def _packed(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys of rows uint16 (M, k)."""
    high, low = np.zeros(len(rows), np.uint64), np.zeros(len(rows), np.uint64)
    for back, column in enumerate(rows.T[::-1]):
        half, shift = (low, back) if back < LOW_TOKENS else (high, back - LOW_TOKENS)
        half |= column.astype(np.uint64) << np.uint64(BITS * shift)
    return high, low


def _rows(high: np.ndarray, low: np.ndarray, order: int) -> np.ndarray:
    """Rows uint16 (M, order) of keys."""
    columns = []
    for back in range(order):
        half, shift = (low, back) if back < LOW_TOKENS else (high, back - LOW_TOKENS)
        columns.append((half >> np.uint64(BITS * shift)).astype(np.uint16))  # the 16 lowest bits
    return np.stack(columns[::-1], 1)


def _merged(one: _Counted, other: _Counted) -> _Counted:
    return _counted(*(np.concatenate(pair) for pair in zip(vars(one).values(), vars(other).values())))


def _counted(high: np.ndarray, low: np.ndarray, counts: np.ndarray) -> _Counted:
    """Keys in order, each once, with the sum of its counts."""
    order = np.lexsort((low, high)) if high.any() else np.argsort(low, kind="stable")
    high, low, counts = high[order], low[order], counts[order]
    starts = np.flatnonzero(np.append(True, (high[1:] != high[:-1]) | (low[1:] != low[:-1])))
    return _Counted(high[starts], low[starts], np.add.reduceat(counts, starts))
