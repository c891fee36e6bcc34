"""The sample: a few of each second's events, whole, so that a judge can see which of their attributes go together.

Rows count each attribute for itself. What a distributed attack has in common is a *combination* of them, and only whole
events show that. So a tally carries, for each service, second and stratum, how many events there were, and at most `KEPT`
of them, chosen by a keyed hash of what they say: everybody chooses the same ones. An entry is kept while its priority is
below 2^64 / 2^level; a cell with more than `KEPT` raises its level. Both cells and entries of neighbouring tallies add up
(`engine.sampling`), so that the cut between tallies never changes a sample, and no flood makes it larger.

Of ACCOUNTS the priority is that of the account alone, the same in every second, so that cells of many seconds can be united
and still count accounts. Entries of one cell with one priority are one: weights add, and where they differ in what they say
the smallest stands for all of them, column by column as signed numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

KEPT = 64
"""Entries of one cell, at most."""
TEXT_BYTES_MAX = 256
"""Values are for edges and for people: they are whole, or cut to so many bytes and then of no use to an edge."""


class Stratum(IntEnum):
    """What kind of event; each event that we did not deny ourselves is of one kind, the first that fits."""

    REGISTERED = 0  # a registration that did not fail
    FAILED = 1  # a failed authentication (of a registration too), or another client error
    ACCOUNTS = 2  # proven to be somebody's: one entry for each account (or key), however much it asks for
    ASSETS = 3  # a static asset
    PAGES = 4  # anything else


VERIFIED = len(Stratum)
"""Where a stratum stands: accounts that were verified, chosen as those of ACCOUNTS are, of which nothing else is told. It is no
stratum: nobody asked for anything, and only `engine.registered` looks at it."""


class Attribute(IntEnum):
    """What entries say, each as a 64-bit word: the first word of the value's key, 0 where there is none.

    A failed authentication is no state for the mail domain that it names: it has none. Whom it names is told, because how many
    are tried says something; it has no text, so that it can become nobody's target. Referrer and notes are told of
    registrations only, of those that failed, too.
    """

    ROUTE = 0
    USER_AGENT = 1
    FINGERPRINT = 2
    COUNTRY = 3
    EMAIL_DOMAIN = 4
    REFERRER = 5
    WHO = 6  # account, else API key
    NOTES = 7  # no word: the name, the autonomous system, the rank of its account (`detectors.kernels.names`)


S_TICK, S_SERVICE_A, S_SERVICE_B, S_STRATUM, S_LEVEL, S_TOTAL, CELL_WORDS = range(7)
"""Columns of a cell: ``S_TOTAL`` is how many events there were (of ACCOUNTS and VERIFIED: events, too, not accounts)."""
E_CELL, E_PRIORITY, E_WEIGHT, E_IP_HIGH, E_IP_LOW, E_ATTRIBUTES = range(6)
ENTRY_WORDS = E_ATTRIBUTES + len(Attribute)
"""Columns of an entry: its cell, its priority (an unsigned number), how many equal ones it stands for (2^level times as many
are meant), the address as in the dimension ``ip`` (of IPv6 the /64; zeros: there is none), and then the attributes."""


@dataclass(slots=True)
class Sample:
    """Cells, by tick, service (both words) and stratum, each at most once; their entries, by cell and priority."""

    cells: I64
    """i64[c, CELL_WORDS]"""
    entries: I64
    """i64[e, ENTRY_WORDS]"""
    words: I64
    """i64[t]: the words of attributes (before WHO) and of services (their first) that are named, ascending, each once …"""
    text_start: I64
    """i64[t + 1]: … whose text is ``text[text_start[i]:text_start[i + 1]]``."""
    text: npt.NDArray[np.uint8]


def empty_sample() -> Sample:
    """Nothing was seen."""
    return Sample(
        np.zeros((0, CELL_WORDS), np.int64), np.zeros((0, ENTRY_WORDS), np.int64), np.zeros(0, np.int64),
        np.zeros(1, np.int64), np.zeros(0, np.uint8),
    )  # fmt: skip


def of_strata(sample: Sample) -> Sample:
    """What a sample has of events that are of a stratum, with all texts."""
    chosen = sample.cells[:, S_STRATUM] != VERIFIED
    if chosen.all():
        return sample
    entries = sample.entries[chosen[sample.entries[:, E_CELL]]]
    entries[:, E_CELL] = (np.cumsum(chosen) - 1)[entries[:, E_CELL]]
    return Sample(sample.cells[chosen], entries, sample.words, sample.text_start, sample.text)
