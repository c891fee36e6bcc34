"""Registrations as rows, second by second, from the samples of tallies: what `engine.cohorts` judges.

Entries of a sample that is not complete stand for many: they are weighed so that together they are all that registered.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from detectors.kernels.names import asn_of, digits_of, length_of, rank_of, registers, surprise_of
from detectors.kernels.registering import NOBODY_REGISTERS, of_registrations_kernel
from detectors.learning.floods import STEP_S
from detectors.learning.marks import Attribute, Rows
from detectors.learning.uses import registered, verified
from detectors.lists import Addresses, holds
from detectors.surplus import networks
from engine.sampling import Held, merge_samples
from schemas import sample as sampled
from schemas.columns import I64
from schemas.sample import (
    E_ATTRIBUTES,
    E_CELL,
    E_IP_HIGH,
    E_IP_LOW,
    E_WEIGHT,
    S_LEVEL,
    S_SERVICE_A,
    S_SERVICE_B,
    S_STRATUM,
    S_TICK,
    S_TOTAL,
    VERIFIED,
    Sample,
    Stratum,
)

Service = tuple[int, int]
"""The words of its key."""
_WORDS = (
    (Attribute.AGENT, sampled.Attribute.USER_AGENT),
    (Attribute.COUNTRY, sampled.Attribute.COUNTRY),
    (Attribute.DOMAIN, sampled.Attribute.EMAIL_DOMAIN),
    (Attribute.REFERRER, sampled.Attribute.REFERRER),
)
_WHO = E_ATTRIBUTES + sampled.Attribute.WHO
_NOTES = E_ATTRIBUTES + sampled.Attribute.NOTES
_TEXTS = [E_ATTRIBUTES + attribute for _, attribute in _WORDS]
_NO_TEXTS = np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros(0, np.uint8)


@dataclass(slots=True)
class Lists:
    """What operators and packages know of mail domains and networks."""

    disposable: Container[bytes] = frozenset()
    customers: Container[bytes] = frozenset()
    hosting_asns: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    hosting: tuple[Addresses, ...] = ()

    def is_disposable(self, domain: bytes) -> bool:
        """Whether a mail domain or one that it is a part of is on the list."""
        domain = domain.lower()
        while True:
            if domain in self.customers:
                return False
            if domain in self.disposable:
                return True
            _, dot, domain = domain.partition(b".")
            if not dot or b"." not in domain:
                return False


@dataclass(slots=True)
class Came(Held):
    """What came in a tally: the cells that may hold registrations, or what accounts do, in arrays of their own."""

    registers_from: int = NOBODY_REGISTERS
    """The first second in which somebody registers"""

    def pass_over(self, closed: int) -> None:
        """Nothing up to a second is of any use."""
        self.at = max(self.at, int(np.searchsorted(self.sample.cells[:, S_TICK], closed, "right")))


def of_registrations(sample: Sample) -> Came:
    """What of a sample is to be kept."""
    cells, entries = np.empty_like(sample.cells), np.empty_like(sample.entries)
    many, count, first = of_registrations_kernel(sample.cells, sample.entries, cells, entries)
    cells, entries = cells[:many], entries[:count]
    if first == NOBODY_REGISTERS:
        # Texts are those that registrations name, and nobody registered here.
        return Came(Sample(cells, entries, *_NO_TEXTS))
    return Came(Sample(cells, entries, sample.words.copy(), sample.text_start.copy(), sample.text.copy()), registers_from=first)


def merged_registrations(samples: list[Sample]) -> Sample:
    """Several of them as one, with the texts that registrations name and no others."""
    merged = merge_samples(samples)
    rows = merged.entries[registers(merged.entries[:, _NOTES])]
    named = np.unique(np.concatenate([rows[:, _TEXTS].ravel(), merged.cells[rows[:, E_CELL], S_SERVICE_A]]))
    kept = np.isin(merged.words, named)
    starts, lengths = merged.text_start[:-1][kept], np.diff(merged.text_start)[kept]
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    text = merged.text[np.repeat(starts - ends[:-1], lengths) + np.arange(int(ends[-1]))]
    return Sample(merged.cells, merged.entries, merged.words[kept], ends, text)


def texts_of(sample: Sample) -> Iterator[tuple[int, bytes]]:
    """Words with what they stand for."""
    ends = sample.text_start.tolist()
    for at, word in enumerate(sample.words.tolist()):
        yield word, sample.text[ends[at] : ends[at + 1]].tobytes()


def ticks_of(sample: Sample) -> dict[int, int]:
    """The last second that named each word in a registration, or registered anybody at a service."""
    found: dict[int, int] = {}
    rows = sample.entries[registers(sample.entries[:, _NOTES])]
    cells = sample.cells[rows[:, E_CELL]]
    ticks = cells[:, S_TICK].tolist()
    for words in (cells[:, S_SERVICE_A], *(rows[:, column] for column in _TEXTS)):
        for word, tick in zip(words.tolist(), ticks, strict=True):
            found[word] = max(tick, found.get(word, tick))
    return found


def rows_of_services(sample: Sample, disposable: dict[int, bool], lists: Lists) -> list[tuple[Service, Rows]]:
    """Of each service the registrations of a sample in the order of their seconds."""
    notes = sample.entries[:, _NOTES]
    chosen = registers(notes) & (sample.cells[sample.entries[:, E_CELL], S_STRATUM] != Stratum.ACCOUNTS)
    entries = sample.entries[chosen]
    if not len(entries):
        return []
    cells = sample.cells[entries[:, E_CELL]]
    found = []
    services = np.unique(cells[:, [S_SERVICE_A, S_SERVICE_B]], axis=0)
    weights = _weights(sample)[chosen]
    for a, b in services.tolist():
        mine = (cells[:, S_SERVICE_A] == a) & (cells[:, S_SERVICE_B] == b)
        found.append(((a, b), _rows(entries[mine], cells[mine], weights[mine], disposable, lists)))
    return found


def uses_of_services(sample: Sample) -> list[tuple[Service, I64]]:
    """Of each service what `detectors.learning.uses` takes in of a sample, in the order of seconds."""
    stratum = sample.cells[sample.entries[:, E_CELL], S_STRATUM]
    notes, who = (sample.entries[:, E_ATTRIBUTES + at] for at in (sampled.Attribute.NOTES, sampled.Attribute.WHO))
    makes = (stratum == Stratum.REGISTERED) & registers(notes)
    is_verified = stratum == VERIFIED
    chosen = (who != 0) & (makes | is_verified | ((stratum == Stratum.ACCOUNTS) & ~registers(notes)))
    if not chosen.any():
        return []
    cells = sample.cells[sample.entries[chosen, E_CELL]]
    level = cells[:, S_LEVEL]
    says = np.where(
        makes[chosen], registered(rank_of(notes[chosen])), np.where(is_verified[chosen], verified(level), level)
    )  # fmt: skip
    events = np.stack([cells[:, S_TICK], who[chosen], says], axis=1)
    found = []
    for a in np.unique(cells[:, S_SERVICE_A]).tolist():
        first = cells[:, S_SERVICE_A] == a
        for b in np.unique(cells[first, S_SERVICE_B]).tolist():
            found.append(((a, b), events[first & (cells[:, S_SERVICE_B] == b)]))
    return found


def _weights(sample: Sample) -> npt.NDArray[np.float64]:
    """f64[entries]: how many events each stands for, those of a cell together as many as it has."""
    raw = sample.entries[:, E_WEIGHT].astype(np.float64)
    together = np.bincount(sample.entries[:, E_CELL], raw, len(sample.cells))
    whole = sample.cells[:, S_LEVEL] == 0
    factor = np.where(whole, 1.0, sample.cells[:, S_TOTAL] / np.maximum(together, 1.0))
    weights: npt.NDArray[np.float64] = raw * factor[sample.entries[:, E_CELL]]
    return weights


def _rows(
    entries: I64, cells: I64, weights: npt.NDArray[np.float64], disposable: dict[int, bool], lists: Lists
) -> Rows:  # fmt: skip
    notes = entries[:, _NOTES]
    addresses = np.where(entries[:, E_IP_HIGH] == 0, entries[:, E_IP_LOW], entries[:, E_IP_HIGH])
    words = np.zeros((len(entries), len(Attribute)), np.int64)
    for attribute, column in _WORDS:
        words[:, attribute] = entries[:, E_ATTRIBUTES + column]
    words[:, Attribute.NETWORK] = np.where(addresses == 0, 0, networks(addresses, wide=False))
    words[:, Attribute.ASN] = asn_of(notes)
    hosted = np.isin(words[:, Attribute.ASN], lists.hosting_asns)
    for some in lists.hosting:
        hosted |= holds(some, addresses)
    length = length_of(notes)
    domains = words[:, Attribute.DOMAIN].tolist()
    return Rows(
        cells[:, S_TICK] // STEP_S, weights, words, surprise_of(notes),
        np.where(length > 0, digits_of(notes) / np.maximum(length, 1), -1.0), hosted,
        np.array([disposable.get(word, False) for word in domains], np.bool_), cells[:, S_STRATUM] == Stratum.FAILED,
    )  # fmt: skip
