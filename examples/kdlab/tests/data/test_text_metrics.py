"""Metrics of text tasks against scikit-learn and known values."""

import numpy as np
import pytest
from sklearn import metrics as known

from kdlab.data.text import metrics

RNG = np.random.default_rng(0)
LABELS, PREDICTED = RNG.integers(0, 2, (2, 200))


def test_classes_score_as_in_scikit_learn():
    expected = known.matthews_corrcoef(LABELS, PREDICTED)
    assert metrics.matthews(LABELS, PREDICTED) == pytest.approx(expected)
    assert metrics.f1(LABELS, PREDICTED) == pytest.approx(
        known.f1_score(LABELS, PREDICTED)
    )
    constant = np.ones_like(LABELS)
    assert metrics.matthews(LABELS, constant) == 0
    assert metrics.matthews(LABELS, 1 - LABELS) == pytest.approx(-1)
    assert metrics.f1(LABELS, 0 * LABELS) == 0


def test_correlations_score_as_in_scipy():
    from scipy import stats

    a = RNG.normal(size=50)
    b = np.round(a + RNG.normal(size=50), 0)  # with ties
    assert metrics.pearson(a, b) == pytest.approx(stats.pearsonr(a, b).statistic)
    assert metrics.spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert metrics.pearson(a, np.ones(50)) == 0


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O O", set()),
        ("B-X I-X B-X", {(0, 1, "X"), (2, 2, "X")}),
        ("B-X I-Y", {(0, 0, "X"), (1, 1, "Y")}),
        ("I-X O I-X I-X", {(0, 0, "X"), (2, 3, "X")}),
    ],
)
def test_entities_begin_and_end_as_in_the_evaluation_of_conll(tags, spans):
    assert metrics.find_spans(tags.split()) == spans


def test_entities_count_only_if_both_ends_and_the_type_agree():
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O"]]
    found = [["B-PER", "I-PER", "O", "B-ORG"], ["B-ORG", "I-ORG"]]
    # One of three found and one of three true entities are right.
    assert metrics.span_f1(truth, found) == pytest.approx(1 / 3)
    assert metrics.span_f1(truth, truth) == 1
    assert metrics.span_f1([["O"]], [["O"]]) == 0


@pytest.mark.parametrize(
    ("answers", "predicted", "exact", "f1"),
    [
        (["Denver Broncos"], "the Denver Broncos!", 1, 1),
        (["Denver Broncos", "Broncos"], "broncos", 1, 1),
        (["Santa Clara, California"], "Clara", 0, 0.5),
        (["gold"], "silver", 0, 0),
        (["a b b"], "b b c", 0, 4 / 5),  # the article goes, repeated words count
        ([], "", 1, 1),
        ([], "something", 0, 0),
        (["something"], "", 0, 0),
    ],
)
def test_answers_score_as_in_squad(answers, predicted, exact, f1):
    assert metrics.exact_match(answers, predicted) == exact
    assert metrics.answer_f1(answers, predicted) == pytest.approx(f1)
