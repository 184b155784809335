"""Character n-gram models with interpolated modified Kneser-Ney smoothing, and pruning by relative entropy.

Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling", 1998; the unigrams are
interpolated with the uniform distribution, as in KenLM's lmplz (Heafield et al., ACL 2013), so that unseen characters
have a probability, too. Stolcke, "Entropy-based Pruning of Backoff Language Models", 1998.

Notation: k the order of a table, M its n-grams, V tokens.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from .ngrams import BEGIN_ID, BITS, END_ID, VOID_ID, Grams, Tokens, count_windows, full_order, lower_order

USUAL_DISCOUNTS = (0.5, 1.0, 1.5)  # KenLM's defaults, if a text is too small or too even to estimate them
NEVER = -99.0  # log10 of the probability of events that are never queried


@dataclass
class Table:
    """The n-grams of one order: `rows` uint16 (M, k), `probs` and `backoffs` float64 (M,), not logarithms.

    `keys` int64 (M,), sorted: the index of the first k - 1 tokens in the table below, and the last token.
    """

    rows: np.ndarray
    keys: np.ndarray
    probs: np.ndarray
    backoffs: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def prefixes(self) -> np.ndarray:
        """Index of the n-gram without its last token in the table below, (M,)."""
        return self.keys >> BITS

    def kept(self, keep: np.ndarray) -> "Table":
        return Table(self.rows[keep], self.keys[keep], self.probs[keep], self.backoffs[keep])


@dataclass(frozen=True)
class NgramModel:
    """Tables of the orders 1 to N, and the names of their tokens."""

    tables: list[Table]
    names: list[str]

    @property
    def order(self) -> int:
        return len(self.tables)


def estimate(lines: Iterable[str], order: int, characters: Iterable[str] = ()) -> NgramModel:
    """Estimate a model from lines; `characters`: its vocabulary, empty for the characters of the text.

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
    """Indices of rows (M, k) in the table of order k; all must exist."""
    at = rows[:, 0].astype(np.int64)
    for table, column in zip(tables[1:], rows.T[1:]):
        at = np.searchsorted(table.keys, (at << BITS) | column)
    return at


def discounts(counts: np.ndarray) -> tuple[float, float, float]:
    """The discounts for n-grams of one order with counts of 1, 2, and 3 or more."""
    once, twice, thrice, four = (int((counts == number).sum()) for number in (1, 2, 3, 4))
    if not (once and twice and thrice):
        return USUAL_DISCOUNTS
    share = once / (once + 2 * twice)
    found = 1 - 2 * share * twice / once, 2 - 3 * share * thrice / twice, 3 - 4 * share * four / thrice
    return found if all(0 <= one <= most for one, most in zip(found, (1, 2, 3))) else USUAL_DISCOUNTS


def _discounted(counts: np.ndarray, groups: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Discounted shares of the counts in their group, (M,), and the mass left in each of the `size` groups."""
    taken = np.array([0.0, *discounts(counts)])[np.minimum(counts, 3)]
    sums = np.bincount(groups, counts, size)
    with np.errstate(invalid="ignore"):
        return (counts - taken) / sums[groups], np.bincount(groups, taken, size) / sums


def _unigrams(grams: Grams, size: int) -> Table:
    """The table of all `size` tokens, including unseen ones."""
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
    """The table of one order; sets the backoffs of the table below."""
    prefixes, suffixes = find(below, grams.rows[:, :-1]), find(below, grams.rows[:, 1:])
    shares, left = _discounted(grams.counts, prefixes, len(below[-1]))
    below[-1].backoffs = np.where(np.isnan(left), 1.0, left)
    probs = shares + below[-1].backoffs[prefixes] * below[-1].probs[suffixes]
    keys = (prefixes << BITS) | grams.rows[:, -1]
    return Table(grams.rows, keys, probs, np.ones(len(grams)))


def prune(model: NgramModel, threshold: float) -> NgramModel:
    """A smaller model, without the n-grams whose removal raises the perplexity by less than the fraction `threshold`.

    Unigrams are kept, and so are the prefix and the suffix of every longer n-gram that is kept.
    """
    tables = [replace(table) for table in model.tables]  # their arrays are replaced, not modified
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
        if order < len(tables):  # the indices of its prefixes have changed
            prefixes = find(tables[:order], longer.rows[:, :-1])
            longer.keys = (prefixes << BITS) | longer.rows[:, -1]
    return NgramModel(tables, model.names)


def _backoffs(table: Table, lower_probs: np.ndarray, size: int) -> np.ndarray:
    """Backoffs of the `size` contexts: the mass their n-grams leave, divided by what the lower order leaves."""
    left = 1 - np.bincount(table.prefixes, table.probs, size)
    lower_left = 1 - np.bincount(table.prefixes, lower_probs, size)
    return np.where((left > 0) & (lower_left > 0), left / np.maximum(lower_left, 1e-300), 1.0)


def _losses(tables: list[Table], order: int) -> np.ndarray:
    """The relative rise of the perplexity if one n-gram of this order is removed, for each (M,)."""
    table, below = tables[order - 1], tables[order - 2]
    prefixes = table.prefixes
    probs, lower = table.probs, below.probs[find(tables[: order - 1], table.rows[:, 1:])]
    left = np.maximum(1 - np.bincount(prefixes, probs, len(below)), 1e-12)[prefixes]
    lower_left = np.maximum(1 - np.bincount(prefixes, lower, len(below)), 1e-12)[prefixes]
    backoff, changed = left / lower_left, (left + probs) / (lower_left + lower)
    gain = probs * (np.log(lower) + np.log(changed) - np.log(probs)) + left * (np.log(changed) - np.log(backoff))
    return np.expm1(-_context_probs(tables, order)[prefixes] * gain)


def _context_probs(tables: list[Table], order: int) -> np.ndarray:
    """Probability of each n-gram of the table below at any position of a text, by the chain rule, (M,)."""
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
