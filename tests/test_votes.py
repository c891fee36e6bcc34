"""River's models as votes: read off as River reads them, and gone on from exactly where they were."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detectors.learning.votes import Classifier, Trees
from schemas.errors import StateError

FEATURES = 6


def rows(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, FEATURES))


def taught(seed: int) -> Classifier:
    classifier = Classifier(FEATURES)
    for number, row in enumerate(rows(seed, 200)):
        classifier.learn(row + (number % 3 == 0), attack=number % 3 == 0)
    return classifier


def test_logits_are_those_of_river() -> None:
    classifier, asked = taught(1), rows(2, 5)
    for row, logit in zip(asked, classifier.logits(asked).tolist(), strict=True):
        named = classifier._scaler.transform_one(dict(enumerate(row.tolist())))
        said = classifier._model.predict_proba_one(named)[True]
        assert logit == pytest.approx(math.log(said / (1 - said)), abs=1e-9)


def test_before_both_labels_came_a_classifier_says_nothing() -> None:
    classifier = Classifier(FEATURES)
    classifier.learn(np.ones(FEATURES), attack=True)
    assert classifier.logits(rows(3, 2)).tolist() == [0.0, 0.0]


def test_a_classifier_goes_on_from_its_arrays() -> None:
    one, other = taught(4), Classifier(FEATURES)
    other.load(one.save())
    for number, row in enumerate(rows(5, 100)):
        one.learn(row, attack=number % 2 == 0)
        other.learn(row, attack=number % 2 == 0)
    assert one.logits(rows(6, 9)).tolist() == other.logits(rows(6, 9)).tolist()


def test_trees_go_on_from_their_arrays() -> None:
    one, other = Trees(FEATURES, 7), Trees(FEATURES, 7)
    for row in rows(8, 700):
        one.learn(row)
    other.load(one.save())
    for row in rows(9, 600):
        assert one.score(row) == other.score(row)
        one.learn(row)
        other.learn(row)
    assert one.score(np.full(FEATURES, 6.0)) > one.score(np.zeros(FEATURES))


def test_models_of_others_are_refused() -> None:
    with pytest.raises(StateError, match="expected trees of schema"):
        Trees(FEATURES, 1).load(Trees(FEATURES, 2).save())
    with pytest.raises(StateError, match="expected a classifier of schema"):
        Classifier(FEATURES).load(Classifier(FEATURES + 1).save())
