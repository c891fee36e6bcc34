"""River's models as votes on z features: a classifier that learns from verdicts, and half-space trees.

Both are kept as plain arrays (never pickled) with a hash of what they are made of, and go on exactly where they were.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from river import anomaly, linear_model, optim, preprocessing

from detectors.learning.levels import F64
from schemas.errors import StateError

RATE, INTERCEPT_RATE, SHRINK = 0.02, 0.02, 1e-4
TREES, HEIGHT, TREES_WINDOW = 10, 6, 500
Z_FROM, Z_TO = -4.0, 8.0
"""What becomes 0 and 1 for trees, which would score everything 0 otherwise, silently."""


def schema_hash(*parts: object) -> str:
    """Of what a model is made of."""
    return hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=8).hexdigest()


class Classifier:
    """``StandardScaler | LogisticRegression``; logits are read off its weights for many rows at once."""

    def __init__(self, features: int) -> None:
        self._features = features
        self.schema = schema_hash("classifier", 1, features, RATE, INTERCEPT_RATE, SHRINK)
        # River has no types for these methods.
        self._scaler: Any = preprocessing.StandardScaler()
        self._model: Any = linear_model.LogisticRegression(optimizer=optim.SGD(RATE), l2=SHRINK, intercept_lr=INTERCEPT_RATE)
        self.labels = [0, 0]
        """Learned, of no attack and of one"""
        self._read_off()

    def learn(self, x: F64, *, attack: bool, weight: float = 1.0) -> None:
        """One labelled row (f64[features])."""
        named = dict(enumerate(x.tolist()))
        self._scaler.learn_one(named)
        self._model.learn_one(self._scaler.transform_one(named), attack, weight)
        self.labels[attack] += 1
        self._stale = True

    def logits(self, x: F64) -> F64:
        """f64[n]: of rows f64[n, features]; 0 before both kinds of label came."""
        if min(self.labels) == 0:
            return np.zeros(len(x))
        if self._stale:
            self._read_off()
        found: F64 = ((x - self._means) / self._spreads) @ self._weights + self._intercept
        return found

    def _read_off(self) -> None:
        numbers = range(self._features)
        self._means: F64 = np.array([self._scaler.means[n] for n in numbers], np.float64)
        variances = np.array([self._scaler.vars[n] for n in numbers], np.float64)
        weights = self._model.weights
        self._spreads: F64 = np.where(variances > 0, np.sqrt(variances), 1.0)
        self._weights: F64 = np.where(variances > 0, np.array([weights.get(n, 0.0) for n in numbers], np.float64), 0.0)
        self._intercept = float(self._model.intercept)
        self._stale = False

    def save(self) -> dict[str, Any]:
        """Arrays for `load`."""
        self._read_off()
        numbers = range(self._features)
        variances = np.array([self._scaler.vars[n] for n in numbers], np.float64)
        weights = self._model.weights
        return {
            "schema": self.schema, "labels": list(self.labels), "seen": self._scaler.counts[0],
            "iterations": self._model.optimizer.n_iterations,
            "numbers": np.stack([self._means, variances, np.array([weights.get(n, 0.0) for n in numbers])]),
            "intercept": np.array([self._intercept]),
        }  # fmt: skip

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave.

        Raises:
            StateError: it is of another model.
        """
        if data["schema"] != self.schema or data["numbers"].shape != (3, self._features):
            raise StateError(f"expected a classifier of schema {self.schema}, got {data['schema']!r:.40}")
        means, variances, weights = data["numbers"].tolist()
        for n in range(self._features if data["seen"] else 0):
            self._scaler.counts[n], self._scaler.means[n], self._scaler.vars[n] = data["seen"], means[n], variances[n]
            self._model._weights[n] = weights[n]
        self._model.optimizer.n_iterations, self._model.intercept = data["iterations"], float(data["intercept"][0])
        self.labels = list(data["labels"])
        self._read_off()


class Trees:
    """Half-space trees on z features; before the first window is full they say 0."""

    def __init__(self, features: int, seed: int) -> None:
        self._features = features
        self.schema = schema_hash("trees", 1, features, seed, TREES, HEIGHT, TREES_WINDOW)
        self._model: Any = anomaly.HalfSpaceTrees(n_trees=TREES, height=HEIGHT, window_size=TREES_WINDOW, seed=seed)

    def learn(self, z: F64) -> None:
        """One usual row."""
        self._model.learn_one(_scaled(z))

    def score(self, z: F64) -> float:
        """0 to 1, the higher the rarer."""
        return float(self._model.score_one(_scaled(z)))

    def save(self) -> dict[str, Any]:
        """Arrays for `load`: the trees follow from the seed, only what fell into them is kept."""
        masses = [[[node.l_mass, node.r_mass] for node in nodes] for nodes in self._model._tree_nodes]
        return {
            "schema": self.schema, "counter": self._model.counter, "first": int(self._model._first_window),
            "masses": np.array(masses, np.int64),
        }  # fmt: skip

    def load(self, data: dict[str, Any]) -> None:
        """Take over what `save` gave.

        Raises:
            StateError: it is of other trees.
        """
        if data["schema"] != self.schema:
            raise StateError(f"expected trees of schema {self.schema}, got {data['schema']!r:.40}")
        if data["masses"].size == 0:
            return
        self._model.learn_one(_scaled(np.zeros(self._features)))  # grows them
        for nodes, masses in zip(self._model._tree_nodes, data["masses"].tolist(), strict=True):
            for node, (left, right) in zip(nodes, masses, strict=True):
                node.l_mass, node.r_mass = left, right
        self._model.counter, self._model._first_window = data["counter"], bool(data["first"])


def _scaled(z: F64) -> dict[int, float]:
    return dict(enumerate(((np.clip(z, Z_FROM, Z_TO) - Z_FROM) / (Z_TO - Z_FROM)).tolist()))
