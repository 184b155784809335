"""Character n-gram models by interpolated modified Kneser-Ney smoothing, and their pruning by relative entropy.

Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling", 1998; the unigrams are
interpolated with the uniform distribution, as KenLM's lmplz does (Heafield et al., ACL 2013), so that what the text
lacks has a probability too. Stolcke, "Entropy-based Pruning of Backoff Language Models", 1998.

Notation: k the order of a table, M its n-grams, V tokens.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from .ngrams import BEGIN_ID, BITS, END_ID, VOID_ID, Grams, Tokens, count_windows, full_order, lower_order

USUAL_DISCOUNTS = (0.5, 1.0, 1.5)  # where a text is too small or too even to tell; KenLM's
NEVER = -99.0  # log10 of the probability of what is never asked for


@dataclass
class Table:
    """The n-grams of one order: `rows` uint16 (M, k), `probs` and `backoffs` float64 (M,), natural numbers.

    `keys` int64 (M,): where the first k - 1 tokens stand in the table before, and the last token; sorted.
    """

    rows: np.ndarray
    keys: np.ndarray
    probs: np.ndarray
    backoffs: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def prefixes(self) -> np.ndarray:
        """Where the n-gram without its last token stands in the table before, (M,)."""
        return self.keys >> BITS

    def kept(self, keep: np.ndarray) -> "Table":
        return Table(self.rows[keep], self.keys[keep], self.probs[keep], self.backoffs[keep])


@dataclass(frozen=True)
class NgramModel:
    """Tables of the orders 1 to N, and what their tokens are called."""

    tables: list[Table]
    names: list[str]

    @property
    def order(self) -> int:
        return len(self.tables)


def estimate(lines: Iterable[str], order: int, characters: Iterable[str] = ()) -> NgramModel:
    """A model of the lines; `characters`: all that it shall know, none for those of the text.

    Raises LanguageModelError as `count_windows` does.
    """
    tokens = Tokens(characters)
    windows = count_windows(lines, tokens, order)
    counted = [full_order(windows)]
    while counted[0].rows.shape[1] > 1:
        counted.insert(0, lower_order(counted[0], windows))
    tables = [_unigrams(counted[0], len(tokens.names))]
    for grams in counted[1:]:
        tables.append(_table(grams, tables))
    return NgramModel(tables, tokens.names)


def find(tables: list[Table], rows: np.ndarray) -> np.ndarray:
    """Where rows (M, k) stand in the table of order k; all must be there."""
    at = rows[:, 0].astype(np.int64)
    for table, column in zip(tables[1:], rows.T[1:]):
        at = np.searchsorted(table.keys, (at << BITS) | column)
    return at


def discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """What is taken from counts of 1, of 2, and of 3 and more, of n-grams of one order."""
    once, twice, thrice, four = (int((counts == number).sum()) for number in (1, 2, 3, 4))
    if not (once and twice and thrice):
        return USUAL_DISCOUNTS
    share = once / (once + 2 * twice)
    found = 1 - 2 * share * twice / once, 2 - 3 * share * thrice / twice, 3 - 4 * share * four / thrice
    return found if all(0 <= one <= most for one, most in zip(found, (1, 2, 3))) else USUAL_DISCOUNTS


def _discounted(counts: np.ndarray, groups: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the counts in their group, (M,), and what each of the `size` groups has left for others."""
    taken = np.array([0.0, *discounts(counts)])[np.minimum(counts, 3)]
    sums = np.bincount(groups, counts, size)
    with np.errstate(invalid="ignore"):
        return (counts - taken) / sums[groups], np.bincount(groups, taken, size) / sums


def _unigrams(grams: Grams, size: int) -> Table:
    """The table of all `size` tokens, whether they were counted or not."""
    counts = np.zeros(size, np.int64)
    counts[grams.rows[:, 0]] = grams.counts
    counts[[VOID_ID, BEGIN_ID]] = 0  # nothing predicts these
    seen = np.flatnonzero(counts)
    shares, left = _discounted(counts[seen], np.zeros(len(seen), np.int64), 1)
    probs = np.full(size, left[0] / (size - 2))
    probs[seen] += shares
    probs[[VOID_ID, BEGIN_ID]] = 0.0
    rows = np.arange(size, dtype=np.uint16)[:, None]
    return Table(rows, np.arange(size, dtype=np.int64), probs, np.ones(size))


def _table(grams: Grams, below: list[Table]) -> Table:
    """The table of one order; the backoffs of the table below are set."""
    prefixes, suffixes = find(below, grams.rows[:, :-1]), find(below, grams.rows[:, 1:])
    shares, left = _discounted(grams.counts, prefixes, len(below[-1]))
    below[-1].backoffs = np.where(np.isnan(left), 1.0, left)
    probs = shares + below[-1].backoffs[prefixes] * below[-1].probs[suffixes]
    keys = (prefixes << BITS) | grams.rows[:, -1]
    return Table(grams.rows, keys, probs, np.ones(len(grams)))


def prune(model: NgramModel, threshold: float) -> NgramModel:
    """A smaller model, without the n-grams whose loss raises the perplexity by less than `threshold`, a share.

    Unigrams stay, and so does what a longer n-gram that stays begins or ends with.
    """
    tables = [replace(table) for table in model.tables]  # whose arrays are replaced, not written to
    for order in range(len(tables), 1, -1):
        table, below = tables[order - 1], tables[order - 2]
        keep = _losses(tables, order) >= threshold
        if order < len(tables):
            longer = tables[order]
            keep[longer.prefixes] = True
            keep[find(tables[:order], longer.rows[:, 1:])] = True
        suffixes = find(tables[: order - 1], table.rows[:, 1:])
        tables[order - 1] = table.kept(keep)
        below.backoffs = _backoffs(tables[order - 1], below.probs[suffixes[keep]], len(below))
        if order < len(tables):  # whose prefixes stand elsewhere now
            prefixes = find(tables[:order], longer.rows[:, :-1])
            longer.keys = (prefixes << BITS) | longer.rows[:, -1]
    return NgramModel(tables, model.names)


def _backoffs(table: Table, lower_probs: np.ndarray, size: int) -> np.ndarray:
    """Backoffs of the `size` contexts: what their n-grams leave, as a share of what the lower order leaves."""
    left = 1 - np.bincount(table.prefixes, table.probs, size)
    lower_left = 1 - np.bincount(table.prefixes, lower_probs, size)
    return np.where((left > 0) & (lower_left > 0), left / np.maximum(lower_left, 1e-300), 1.0)


def _losses(tables: list[Table], order: int) -> np.ndarray:
    """By what share the perplexity rises if one n-gram of this order is taken away, for each (M,)."""
    table, below = tables[order - 1], tables[order - 2]
    prefixes = table.prefixes
    probs, lower = table.probs, below.probs[find(tables[: order - 1], table.rows[:, 1:])]
    left = np.maximum(1 - np.bincount(prefixes, probs, len(below)), 1e-12)[prefixes]
    lower_left = np.maximum(1 - np.bincount(prefixes, lower, len(below)), 1e-12)[prefixes]
    backoff, changed = left / lower_left, (left + probs) / (lower_left + lower)
    gain = probs * (np.log(lower) + np.log(changed) - np.log(probs)) + left * (np.log(changed) - np.log(backoff))
    return np.expm1(-_context_probs(tables, order)[prefixes] * gain)


def _context_probs(tables: list[Table], order: int) -> np.ndarray:
    """Probability of each n-gram of the table below to stand anywhere in a text, by the chain rule, (M,)."""
    known = np.ones(1)
    for at, table in enumerate(tables[: order - 1]):
        own = table.probs if at else np.where(table.rows[:, 0] == BEGIN_ID, table.probs[END_ID], table.probs)
        known = own * (known[table.prefixes] if at else 1.0)
    return known


def write_arpa(model: NgramModel, path: str) -> None:
    """Write the model as an ARPA file."""
    with open(path, "w", encoding="utf-8") as file:
        file.write("\\data\\\n")
        for order, table in enumerate(model.tables, 1):
            file.write(f"ngram {order}={len(table) - (order == 1)}\n")
        for order, table in enumerate(model.tables, 1):
            file.write(f"\n\\{order}-grams:\n")
            with np.errstate(divide="ignore"):
                probs = np.maximum(np.log10(table.probs), NEVER).tolist()
                backoffs = np.log10(table.backoffs).tolist()
            for row, prob, backoff in zip(table.rows.tolist(), probs, backoffs):
                if row[0] == VOID_ID:
                    continue
                words = " ".join(model.names[token] for token in row)
                file.write(f"{prob:.5g}\t{words}\t{backoff:.5g}\n" if backoff else f"{prob:.5g}\t{words}\n")
        file.write("\n\\end\\\n")
