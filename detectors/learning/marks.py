"""Registrations as rows, what is unusual about each of them, and their sums step by step. Pure, and as fast for years as for
ten seconds: a study makes the sums of a day at once with the same lines that a judge makes those of a step with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.learning.floods import BASE_OF, BASES, COLUMNS, MARKS, Base, Mark
from schemas.columns import I64
from schemas.errors import StateError

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

NEW_AGENT_SHARE, FOREIGN_SHARE = 0.002, 0.01
"""What fewer of a service's registrations have is new to it, or foreign."""
RARE_BITS_MAX = 13.0
"""A mail domain that nobody had yet is so surprising."""
VOCABULARY_HOURS = 14 * 24.0
"""A word weighs 1/e of a new one after so long."""
VOCABULARY_LEAST = 1000.0
"""Registrations that have to be known before anything is new or foreign."""
SAME_STEPS = 60
"""Ten minutes: who comes from a network after somebody else within so long is not by chance there, mostly."""


class Attribute(IntEnum):
    """What registrations can have in common."""

    AGENT = 0
    COUNTRY = 1
    DOMAIN = 2
    NETWORK = 3  # the /24 or /48
    ASN = 4
    REFERRER = 5


WORDS_MAX = (512, 256, 4096, 8192, 1024, 512)
"""Of each attribute so many words are known, the commonest: 230 kB of a service."""


@dataclass(slots=True)
class Rows:
    """Registrations, made or refused, ordered by step; arrays of one length."""

    step: I64
    weight: F64
    """How many each stands for"""
    words: I64
    """i64[n, attributes]; 0: none is known"""
    surprise: F64
    """Bits for each letter of the name"""
    digits: F64
    """Share of the name; a row without a name has -1"""
    hosted: Mask
    disposable: Mask
    failed: Mask

    def take(self, chosen: Any) -> Rows:
        """Some of them."""
        return Rows(*(column[chosen] for column in self.columns()))

    def columns(self) -> list[Any]:
        """What `Rows` is made of again."""
        return [getattr(self, name) for name in Rows.__slots__]


def joined(parts: list[Rows]) -> Rows:
    """All of them, as they come."""
    return Rows(*(np.concatenate(columns) for columns in zip(*(part.columns() for part in parts), strict=True)))


@dataclass(slots=True)
class Vocabulary:
    """How often words come, fading; of those that are too many the rarest are forgotten."""

    most: int
    words: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    weights: F64 = field(default_factory=lambda: np.zeros(0, np.float64))
    total: float = 0.0

    def shares(self, words: I64) -> F64:
        """f64[n]: of all that came; what never did has half a one's."""
        at = np.searchsorted(self.words, words)
        at[at == len(self.words)] = 0
        known = self.words[at] == words if len(self.words) else np.zeros(len(words), np.bool_)
        found: F64 = (np.where(known, self.weights[at] if len(self.words) else 0.0, 0.0) + 0.5) / (self.total + 1.0)
        return found

    def learn(self, words: I64, weights: F64, fade: float) -> None:
        """Take in words after the time that ``fade`` says has passed."""
        kept = words != 0
        distinct, which = np.unique(np.concatenate([self.words, words[kept]]), return_inverse=True)
        added = np.bincount(which, np.concatenate([fade * self.weights, weights[kept]]), len(distinct)).astype(np.float64)
        self.total = fade * self.total + float(weights[kept].sum())
        if len(distinct) > self.most:
            heavy = np.sort(np.lexsort((distinct, -added))[: self.most])
            distinct, added = distinct[heavy], added[heavy]
        self.words, self.weights = distinct, added

    def save(self) -> list[Any]:
        """Arrays for `load`."""
        return [self.words.copy(), self.weights.view(np.int64).copy(), np.array([self.total]).view(np.int64)]

    def load(self, data: list[Any]) -> None:
        """Take over what `save` gave."""
        words, weights, total = data
        if words.shape != weights.shape or len(words) > self.most or (words[1:] <= words[:-1]).any():
            raise StateError(
                f"expected up to {self.most} words in order with weights, got {words.shape} and {weights.shape}"
            )
        self.words, self.weights, self.total = words.copy(), weights.view(np.float64).copy(), float(total.view(np.float64)[0])


class Usual:
    """What registrations of one service usually say of themselves."""

    def __init__(self) -> None:
        self.of = [Vocabulary(most) for most in WORDS_MAX]
        """By `Attribute`"""
        self._recent: tuple[I64, I64] = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        """Networks of the last ten minutes, ascending, and the last step of each"""

    @property
    def is_known(self) -> bool:
        """Enough came to say what is new."""
        return self.of[Attribute.AGENT].total >= VOCABULARY_LEAST

    def marks(self, rows: Rows) -> F64:
        """f64[n, MARKS]: what each has of each mark. Rows come in the order of their steps, call after call."""
        found = np.zeros((len(rows.step), MARKS))
        if self.is_known:
            agents, countries = rows.words[:, Attribute.AGENT], rows.words[:, Attribute.COUNTRY]
            found[:, Mark.NEW_AGENT] = self.of[Attribute.AGENT].shares(agents) < NEW_AGENT_SHARE
            found[:, Mark.FOREIGN] = (self.of[Attribute.COUNTRY].shares(countries) < FOREIGN_SHARE) & (countries != 0)
        bits = -np.log2(self.of[Attribute.DOMAIN].shares(rows.words[:, Attribute.DOMAIN]))
        found[:, Mark.RARE_DOMAIN] = np.minimum(bits, RARE_BITS_MAX)
        found[:, Mark.HOSTED], found[:, Mark.DISPOSABLE] = rows.hosted, rows.disposable
        found[:, Mark.SURPRISE], found[:, Mark.DIGITS] = rows.surprise, np.maximum(rows.digits, 0.0)
        found[:, Mark.SAME_NETWORK] = self._again(rows.words[:, Attribute.NETWORK], rows.step)
        found[:, Mark.FAILED] = rows.failed
        return found

    def _again(self, network: I64, step: I64) -> Mask:
        """bool[n]: which come from a network that somebody registered from in the ten minutes before."""
        if not len(network):
            return np.zeros(0, np.bool_)
        networks, steps = np.concatenate([self._recent[0], network]), np.concatenate([self._recent[1], step])
        order = np.lexsort((steps, networks))
        sorted_networks, sorted_steps = networks[order], steps[order]
        again = np.zeros(len(order), np.bool_)
        same = sorted_networks[1:] == sorted_networks[:-1]
        again[1:] = same & (sorted_steps[1:] - sorted_steps[:-1] <= SAME_STEPS) & (sorted_networks[1:] != 0)
        flags = np.zeros(len(order), np.bool_)
        flags[order] = again
        last = np.append(~same, True) & (sorted_steps > int(step[-1]) - SAME_STEPS)
        self._recent = sorted_networks[last], sorted_steps[last]
        return flags[len(flags) - len(network) :]

    def learn(self, rows: Rows, hours: float) -> None:
        """Learn from registrations after so many more hours."""
        made, fade = ~rows.failed, float(np.exp(-hours / VOCABULARY_HOURS))
        for attribute, vocabulary in enumerate(self.of):
            vocabulary.learn(rows.words[made, attribute], rows.weight[made], fade)

    def save(self) -> list[Any]:
        """Arrays for `load`."""
        return [*(one.save() for one in self.of), *self._recent]

    def load(self, data: list[Any]) -> None:
        """Take over what `save` gave."""
        *vocabularies, networks, steps = data
        for one, saved in zip(self.of, vocabularies, strict=True):
            one.load(saved)
        if networks.shape != steps.shape:
            raise StateError(f"expected a step for each network, got {networks.shape} and {steps.shape}")
        self._recent = networks.copy(), steps.copy()


def sums_of(rows: Rows, marks: F64, first: int, steps: int, *, known: bool) -> F64:
    """f64[steps, COLUMNS]: the sums of steps ``first`` to ``first + steps - 1`` (`detectors.learning.floods`).

    Args:
        known: it was known what is new (`Usual.is_known`).
    """
    found = np.zeros((steps, COLUMNS))
    at, made, weight = rows.step - first, ~rows.failed, rows.weight
    of = np.zeros((len(at), BASES))
    of[:, Base.MADE], of[:, Base.TRIED] = made, 1.0
    of[:, Base.NAMED], of[:, Base.KNOWN], of[:, Base.KNOWN_MAILED] = (
        made & (rows.digits >= 0),
        made & known,
        made & known & (rows.words[:, Attribute.DOMAIN] != 0),
    )
    for base in range(BASES):
        found[:, base] = np.bincount(at, weight * of[:, base], steps)
    for mark in range(MARKS):
        value = marks[:, mark] * of[:, BASE_OF[mark]]
        found[:, BASES + mark] = np.bincount(at, weight * value, steps)
        found[:, BASES + MARKS + mark] = np.bincount(at, weight * value * value, steps)
    return found
