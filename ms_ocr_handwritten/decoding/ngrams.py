"""Counting character n-grams of any amount of text, block by block, as sorted tables.

A line of text is `<s> c1 c2 ... </s>`. Its windows of `order` tokens are counted; windows that would begin before the
line are padded with VOID. The Kneser-Ney counts of all lower orders are derived from them.

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
    """The token of a character in a language model: itself, but SPACE for a space, which separates tokens."""
    return SPACE if character == " " else character


@dataclass(frozen=True)
class Grams:
    """Distinct n-grams of one order, sorted by their tokens: `rows` uint16 (M, k), `counts` int64 (M,)."""

    rows: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


class Tokens:
    """Maps characters to ids of 16 bits: a given set, or all that occur."""

    def __init__(self, characters: Iterable[str] = ()) -> None:
        """characters: the model's vocabulary, others become UNKNOWN; empty for all characters of the text."""
        self.names = [*MARKS, *map(token_of, dict.fromkeys(characters))]
        self.closed = len(self.names) > len(MARKS)
        self.ids = {name: index for index, name in enumerate(self.names)}

    def encode(self, text: str) -> list[int]:
        """Ids of a line's characters. Raises LanguageModelError for more distinct characters than fit in 16 bits."""
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
    """All distinct windows of `order` tokens. Memory grows with their number, not with the number of lines.

    Raises LanguageModelError if order is not in 2 to MAX_ORDER, or there is no text.
    """
    if not 2 <= order <= MAX_ORDER:
        raise LanguageModelError(f"the order is {order}; 2 to {MAX_ORDER} expected")
    runs: list[_Counted] = []
    for block in _blocks(lines, tokens, order):
        ends = np.flatnonzero(block > BEGIN_ID)  # one window per token, which is its last
        counted = _counted(*_keys(block, ends, order), np.ones(len(ends), np.int64))
        while runs and len(runs[-1].counts) < 2 * len(counted.counts):  # so that each n-gram is merged only a few times
            counted = _merged(runs.pop(), counted)
        runs.append(counted)
    if not runs:
        raise LanguageModelError("there is no text to count; give files of plain text, one sentence per line")
    while len(runs) > 1:
        runs.append(_merged(runs.pop(), runs.pop()))
    return Grams(_rows(runs[0].high, runs[0].low, order), runs[0].counts)


def lower_order(grams: Grams, windows: Grams) -> Grams:
    """The n-grams one token shorter, with the number of distinct tokens before each.

    `windows` are all those of the full order. N-grams that begin with BEGIN have no predecessor and keep their count.
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
    """The windows without padding."""
    full = windows.rows[:, 0] != VOID_ID
    return Grams(windows.rows[full], windows.counts[full])


@dataclass(frozen=True)
class _Counted:
    """Distinct keys, sorted; a key holds the tokens of a window, 16 bits each, the last one lowest."""

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
    """Distinct keys, sorted, each with the sum of its counts."""
    order = np.lexsort((low, high)) if high.any() else np.argsort(low, kind="stable")
    high, low, counts = high[order], low[order], counts[order]
    starts = np.flatnonzero(np.append(True, (high[1:] != high[:-1]) | (low[1:] != low[:-1])))
    return _Counted(high[starts], low[starts], np.add.reduceat(counts, starts))
