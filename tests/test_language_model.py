"""N-gram models: smoothing against formulas written down anew, pruning, KenLM's own answers, bad files."""

import itertools
import json
import logging
import math
from collections import Counter, defaultdict

import kenlm
import numpy as np
import pytest

from ms_ocr_handwritten.decoding import ngrams
from ms_ocr_handwritten.decoding.kneser_ney import NgramModel, discounts, estimate, find, prune, write_arpa
from ms_ocr_handwritten.decoding.language_model import LanguageModel, Weights, save_weights
from ms_ocr_handwritten.errors import LanguageModelError
from ms_ocr_handwritten.vocab import Vocabulary

CHARACTERS = "abcd e"
rng = np.random.default_rng(0)
LINES = ["".join(CHARACTERS[i] for i in np.minimum(rng.geometric(0.35, rng.integers(1, 9)) - 1, 4)) for _ in range(60)]


def naive(lines, order, characters) -> dict[tuple[str, ...], float]:
    """Interpolated modified Kneser-Ney by dictionaries, from the formulas of Chen and Goodman."""
    sentences = [["<s>", *("<space>" if c == " " else c for c in line), "</s>"] for line in lines]
    raw = [Counter(), Counter()] + [
        Counter(tuple(s[i : i + k]) for s in sentences for i in range(len(s) - k + 1)) for k in range(2, order + 1)
    ]
    counts: list[Counter] = [Counter()] * (order + 1)
    counts[order] = raw[order]
    for k in range(order - 1, 0, -1):
        counts[k] = Counter(gram[1:] for gram in (raw[k + 1]))
        for gram in raw[k] if k > 1 else ():
            if gram[0] == "<s>":
                counts[k][gram] = raw[k][gram]
    vocabulary = ["</s>", "<unk>", *characters]

    def discount(k, count):
        taken = discounts(np.array(list(counts[k].values())))
        return taken[min(count, 3) - 1]

    followers: defaultdict = defaultdict(dict)
    for k in range(1, order + 1):
        for gram, count in counts[k].items():
            followers[gram[:-1]][gram[-1]] = count

    def probability(context, token):
        lower = probability(context[1:], token) if context else 1 / len(vocabulary)
        seen = followers.get(context)
        if not seen:
            return lower
        k, total = len(context) + 1, sum(seen.values())
        own = seen.get(token, 0)
        left = sum(discount(k, count) for count in seen.values())
        return ((own - discount(k, own)) if own else 0) / total + left / total * lower

    contexts = {gram[:-1] for k in range(1, order + 1) for gram in counts[k]}
    return {(*context, token): probability(context, token) for context in contexts for token in vocabulary}


def asked(path, context, token) -> float:
    """P(token | context), from KenLM."""
    model = kenlm.Model(str(path))
    state = kenlm.State()
    model.NullContextWrite(state)
    if context[:1] == ("<s>",):
        model.BeginSentenceWrite(state)
        context = context[1:]
    for one in context:
        after = kenlm.State()
        model.BaseScore(state, one, after)
        state = after
    return 10 ** model.BaseScore(state, token, kenlm.State())


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "lm.arpa"
    write_arpa(estimate(LINES, 3, CHARACTERS), str(path))
    return path


def test_every_probability_is_that_of_the_formulas():
    characters = ["<space>" if c == " " else c for c in CHARACTERS]
    expected = naive(LINES, 3, characters)
    model = estimate(LINES, 3, CHARACTERS)
    number = 0
    for order, table in enumerate(model.tables, 1):
        for row, prob in zip(table.rows, table.probs):
            gram = tuple(model.names[token] for token in row)
            if order == 1 and gram[0] in ("<void>", "<s>"):
                continue
            assert prob == pytest.approx(expected[gram], abs=1e-12), gram
            number += 1
    assert number > 100


def test_kenlm_backs_off_to_the_interpolated_probabilities(arpa):
    expected = naive(LINES, 3, ["<space>" if c == " " else c for c in CHARACTERS])
    chosen = [gram for gram in expected if len(gram) == 3][::7]
    assert len(chosen) > 20
    for gram in chosen:
        assert asked(arpa, gram[:-1], gram[-1]) == pytest.approx(expected[gram], rel=1e-3), gram


def test_probabilities_after_any_context_sum_to_one_pruned_or_not(tmp_path):
    model = estimate(LINES, 4, CHARACTERS)
    smaller = prune(model, 2e-3)
    assert [len(table) for table in smaller.tables] < [len(table) for table in model.tables]
    assert len(smaller.tables[3]) < 0.7 * len(model.tables[3])
    write_arpa(smaller, str(tmp_path / "small.arpa"))
    tokens = ["</s>", "<unk>", *("<space>" if c == " " else c for c in CHARACTERS)]
    for context in [("<s>",), ("a",), ("b", "a"), ("<s>", "a", "b"), ("d", "d", "c"), ("<space>",)]:
        sums = sum(asked(tmp_path / "small.arpa", context, token) for token in tokens)
        assert sums == pytest.approx(1, abs=2e-4), context


def test_pruning_takes_what_costs_least():
    """Stolcke's loss of each trigram, by the definition: the relative entropy of all that its context foretells."""
    model = estimate(LINES, 3, CHARACTERS)
    tokens = range(2, len(model.names))
    table, below = model.tables[2], model.tables[1]
    contexts = model.tables[0].probs[below.prefixes] * below.probs
    contexts = np.where(below.rows[:, 0] == 1, model.tables[0].probs[2] * below.probs, contexts)

    def lower(context, token):
        grams = {tuple(row): prob for row, prob in zip(below.rows.tolist(), below.probs)}
        if (context, token) in grams:
            return grams[context, token]
        return model.tables[0].backoffs[context] * model.tables[0].probs[token]

    def loss(index):
        at = table.prefixes[index]
        own = {int(row[-1]): p for row, p in zip(table.rows[table.prefixes == at], table.probs[table.prefixes == at])}
        second = int(below.rows[at, 1])
        kept = {token: p for token, p in own.items() if token != table.rows[index, -1]}

        def full(seen):
            left = (1 - sum(seen.values())) / (1 - sum(lower(second, token) for token in seen))
            return {token: seen.get(token, left * lower(second, token)) for token in tokens}

        before, after = full(own), full(kept)
        entropy = sum(before[token] * math.log(before[token] / after[token]) for token in tokens)
        return math.expm1(contexts[at] * entropy)

    losses = np.array([loss(index) for index in range(len(table))])
    threshold = float(np.median(losses))
    kept = {tuple(row) for row in prune(model, threshold).tables[2].rows.tolist()}
    assert kept == {tuple(row) for row, one in zip(table.rows.tolist(), losses) if one >= threshold}


def test_perplexity_is_kenlms(arpa):
    lines = ["abc", "aé", ""]
    model, own = kenlm.Model(str(arpa)), LanguageModel(arpa)
    found = own.perplexity(lines)
    assert (found.lines, found.characters, found.unknown) == (3, 5, 1)
    score = sum(model.score(" ".join(line)) for line in lines)
    assert found.value == pytest.approx(10 ** (-score / 8))
    assert own.log_prob("ab c") == pytest.approx(model.score("a b <space> c") * math.log(10))
    assert own.log_prob("ａb\u3000c") == own.log_prob("ab c")


def test_the_beams_scorer_adds_up_to_kenlms_sentence_score(arpa):
    vocabulary, weights = Vocabulary(tuple(CHARACTERS)), Weights(0.7, 0.25)
    scorer = LanguageModel(arpa).scorer(vocabulary, weights)
    text, total, state = "abba cd", 0.0, None
    state = scorer.start()
    for class_id in vocabulary.encode(text):
        added, state = scorer.extend(state, class_id)
        total += added
    total += scorer.end(state)
    assert total == pytest.approx(0.7 * LanguageModel(arpa).log_prob(text) + 0.25 * len(text))


def test_what_a_model_does_not_know_is_left_to_the_ink(tmp_path):
    """Else a character that is written clearly is dropped, since its log-probability outweighs the columns'."""
    path = tmp_path / "lm.arpa"
    write_arpa(estimate(["abab"] * 20_000 + ["c"], 2, "abc"), str(path))
    scorer = LanguageModel(path).scorer(Vocabulary(tuple("abc")), Weights(0.5, 1.5))
    rare, _ = scorer.extend(scorer.start(), Vocabulary(tuple("abc")).encode("c")[0])
    assert rare == pytest.approx(0.5 * -3.5 * math.log(10) + 1.5)
    common, _ = scorer.extend(scorer.start(), Vocabulary(tuple("abc")).encode("a")[0])
    assert rare < common <= scorer.most == 1.5


@pytest.mark.parametrize("order", [2, 4, 5, 6, 8])
def test_blocks_of_text_count_as_the_whole(order, monkeypatch):
    tokens = ngrams.Tokens()
    whole = ngrams.count_windows(LINES, tokens, order)
    monkeypatch.setattr(ngrams, "BLOCK", 40)
    parts = ngrams.count_windows(LINES, ngrams.Tokens(), order)
    assert (parts.rows == whole.rows).all() and (parts.counts == whole.counts).all()
    padded = [[0] * (order - 2) + [1, *tokens.encode(line), 2] for line in LINES]
    windows = Counter(
        tuple(line[i - order + 1 : i + 1]) for line in padded for i in range(order - 1, len(line)) if line[i] > 1
    )
    assert {tuple(row): count for row, count in zip(whole.rows.tolist(), whole.counts.tolist())} == windows


def test_find_is_where_n_grams_stand():
    model = estimate(LINES, 4)
    for order in (1, 2, 3, 4):
        rows = model.tables[order - 1].rows
        assert (find(model.tables[:order], rows) == np.arange(len(rows))).all()


def test_what_the_text_lacks_has_a_probability(tmp_path):
    path = tmp_path / "lm.arpa"
    write_arpa(estimate(["ab"] * 5, 3, "abz"), str(path))
    model = LanguageModel(path)
    assert "z" in model and "y" not in model
    assert -20 < model.log_prob("z") < model.log_prob("ab")
    assert asked(path, (), "z") == pytest.approx(asked(path, (), "<unk>"), rel=1e-3)


def test_text_without_anything_in_it():
    with pytest.raises(LanguageModelError, match="no text"):
        estimate([], 3)


def test_files_that_are_no_language_model(arpa, tmp_path):
    content = arpa.read_bytes()
    for name, data in (("cut", content[: len(content) // 2]), ("other", b"\x00\x01" * 50), ("empty", b"")):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(LanguageModelError, match=f"{name}: not readable as a language model"):
            LanguageModel(path)
    with pytest.raises(LanguageModelError, match="none.arpa: no such file"):
        LanguageModel(tmp_path / "none.arpa")


def test_a_model_of_another_vocabulary_says_how_much_it_lacks(arpa, caplog):
    model = LanguageModel(arpa)
    with pytest.raises(LanguageModelError, match=r"lm.arpa: lacks 75% of the recogniser's characters \(x y z\)"):
        model.scorer(Vocabulary(tuple("axyz")), Weights())
    with caplog.at_level(logging.WARNING):
        model.scorer(Vocabulary(tuple("abcx")), Weights())
    assert "lacks 1 of the recogniser's 4 characters (x)" in caplog.text


def test_weights_stand_beside_the_model(arpa, tmp_path):
    path = tmp_path / "lm.arpa"
    path.write_bytes(arpa.read_bytes())
    assert LanguageModel(path).weights == Weights()
    saved = save_weights(path, Weights(0.4, 1.5))
    assert saved == tmp_path / "lm.arpa.json" and json.loads(saved.read_text()) == {"alpha": 0.4, "beta": 1.5}
    assert LanguageModel(path).weights == Weights(0.4, 1.5)
    assert Weights(0.4, 1.5).but(None, 2.0) == Weights(0.4, 2.0)
    saved.write_text("[]")
    with pytest.raises(LanguageModelError, match=r"lm.arpa.json: not readable as weights"):
        _ = LanguageModel(path).weights


def test_usual_discounts_where_counts_say_nothing():
    assert discounts(np.array([4, 4, 4])) == (0.5, 1.0, 1.5)
    found = discounts(np.array([1] * 50 + [2] * 20 + [3] * 10 + [4] * 6))
    share = 50 / 90
    assert found == pytest.approx((1 - 2 * share * 20 / 50, 2 - 3 * share * 10 / 20, 3 - 4 * share * 6 / 10))


def test_an_n_gram_model_knows_its_order():
    model = estimate(LINES, 4)
    assert isinstance(model, NgramModel) and model.order == 4
    grams = set(itertools.chain.from_iterable(zip(*[line[i:] for i in range(2)]) for line in LINES))
    inner = [row for row in model.tables[1].rows.tolist() if min(row) > 2]
    assert len(inner) == len(grams)
