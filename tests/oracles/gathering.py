"""What a report gathers, in plain Python: rows and samples of tallies added up, with no bound on keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from schemas.fields import Dimension, Measure
from schemas.sample import (
    E_ATTRIBUTES,
    E_CELL,
    E_WEIGHT,
    S_LEVEL,
    S_STRATUM,
    S_TICK,
    Attribute,
    Stratum,
)
from schemas.tally import C_DIMENSION, C_HASH, C_MEASURES, C_TICK, Tally

SAMPLED = {
    Attribute.USER_AGENT: Dimension.USER_AGENT, Attribute.COUNTRY: Dimension.COUNTRY,
    Attribute.EMAIL_DOMAIN: Dimension.EMAIL_DOMAIN, Attribute.FINGERPRINT: Dimension.FINGERPRINT,
}  # fmt: skip


def requests_by_tick(tallies: Iterable[Tally]) -> Counter[int]:
    """Everybody's requests of each second."""
    found: Counter[int] = Counter()
    for tally in tallies:
        for row in tally.records.tolist():
            if row[C_DIMENSION] == Dimension.SERVICE:
                found[row[C_TICK]] += row[C_MEASURES + Measure.REQUESTS]
    return found


def requests_by_key(tallies: Iterable[Tally]) -> Counter[tuple[int, int, int]]:
    """Requests by dimension, key (its hash or word) and second."""
    found: Counter[tuple[int, int, int]] = Counter()
    for tally in tallies:
        for row in tally.records.tolist():
            found[row[C_DIMENSION], row[C_HASH], row[C_TICK]] += row[C_MEASURES + Measure.REQUESTS]
        cells = tally.sample.cells.tolist()
        for entry in tally.sample.entries.tolist():
            cell = cells[entry[E_CELL]]
            for attribute, dimension in SAMPLED.items():
                if word := entry[E_ATTRIBUTES + attribute]:
                    found[int(dimension), word, cell[S_TICK]] += entry[E_WEIGHT] << cell[S_LEVEL]
    return found


def registrations_alike(tallies: Iterable[Tally]) -> list[int]:
    """How many registrations each group of those that are alike has, descending."""
    found: Counter[tuple[int, ...]] = Counter()
    for tally in tallies:
        cells = tally.sample.cells.tolist()
        for entry in tally.sample.entries.tolist():
            cell = cells[entry[E_CELL]]
            if cell[S_STRATUM] == Stratum.REGISTERED:
                mail, agent, country = (
                    entry[E_ATTRIBUTES + one] for one in (Attribute.EMAIL_DOMAIN, Attribute.USER_AGENT, Attribute.COUNTRY)
                )
                for alike in {(mail, 0, 0), (0, agent, country)} - {(0, 0, 0)}:
                    found[alike] += entry[E_WEIGHT] << cell[S_LEVEL]
    return sorted(found.values(), reverse=True)
