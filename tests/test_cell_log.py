"""Cells of strata in one table: windows and steps hold what plain Python says, whatever comes together, however it is cut, and
the same is learned from them."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.entropy import EntropySection
from detectors.kernels.alike import ROUTE_WORDS
from detectors.kernels.usual import NOTHING, STEPS
from detectors.signature import SignatureSection
from detectors.surplus import ROW_WORDS
from engine.cell_log import CellLog
from engine.distributed import EMPTY_STEPS_MAX
from engine.sampling import Held
from engine.strata import RouteStanding, Series
from schemas.sample import KEPT, Attribute, Stratum
from tests.oracles.sampling import Cell, Plain, as_arrays, merge
from tests.oracles.strata import PlainLog, PlainSeries, PlainStep

SERVICES, SPAN_S = 3, 47
ENDS = (0, 1 << 60, 1 << 63, (1 << 64) - 1)
SIGNATURE = SignatureSection(growth=1.2, least_failed=0.1, least_accounts=0.1, least_pages=30.0)
ENTROPY = EntropySection(growth=1.1, least_pages=1.0, least_failed=0.2, least_registered=20.0)


def sample(chance: random.Random, first: int, last: int) -> Plain:
    """Cells of a few services and of one that nobody knows."""
    plain = Plain()
    for tick in range(first, last):
        for service in range(SERVICES + 1):
            for stratum in Stratum:
                if chance.random() < 0.4:
                    continue
                cell = Cell(chance.choice([0, 0, 0, 1, 3]), chance.randrange(1, 100))
                for _ in range(chance.randrange(chance.choice([2, 10, KEPT]))):
                    priority = chance.choice([*ENDS, chance.getrandbits(64), chance.getrandbits(61), chance.getrandbits(59)])
                    says = [0, chance.randrange(30), *(chance.randrange(3) for _ in Attribute)]
                    cell.put(priority, chance.randrange(1, 4), tuple(says))
                cell.shrink()
                plain.cells[tick, 7 + service, -service, stratum] = cell
    return plain


def usual(chance: random.Random, stratum: Stratum) -> PlainSeries:
    """A series that has learned from some steps."""
    many, most = chance.choice([0, 11, 12, 29, 30]), chance.choice([0, 20, 100, 900])
    known = PlainSeries(stratum, held=chance.choice([0, 7, 359, 360]))
    for _ in range(many):
        rows, routes = chance.randrange(17), chance.randrange(11)
        known.reference.append(
            PlainStep(
                chance.randint(most // 2, most), random_rows(chance, rows, ROW_WORDS), chance.choice([NOTHING, 1500]),
                random_rows(chance, routes, ROUTE_WORDS),
            )
        )  # fmt: skip
    return known


def random_rows(chance: random.Random, many: int, words: int) -> list[list[int]]:
    return [[chance.randrange(1 << 60) for _ in range(words)] for _ in range(many)]


def saved(known: PlainSeries) -> dict[str, list[object]]:
    """What a series saves."""
    steps = known.reference
    return {
        "totals": [step.total for step in steps],
        "counts": [len(step.rows) for step in steps],
        "rows": [row for step in steps for row in step.rows],
        "repeats": [step.repeats for step in steps],
        "route_counts": [len(step.routes) for step in steps],
        "routes": [route for step in steps for route in step.routes],
        "standing": [known.held, known.suspect, -1, [[route, 0, seen, False] for route, seen in known.routes.items()]],
    }


def as_saved(known: PlainSeries) -> dict[str, object]:
    shapes = {"rows": (-1, ROW_WORDS), "routes": (-1, ROUTE_WORDS)}
    return {
        name: one if name == "standing" else np.array(one, np.int64).reshape(shapes.get(name, -1))
        for name, one in saved(known).items()
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, SPAN_S), max_size=6), st.sampled_from((-100, 15)))
def test_windows_and_steps_are_those_of_plain_python(seed: int, cuts: list[int], judged_from: int) -> None:
    chance, log, plain = random.Random(seed), CellLog(SERVICES, SIGNATURE, ENTROPY), PlainLog(SIGNATURE, ENTROPY)
    known: list[Series] = []
    for place in range(SERVICES):
        service = 7 + place, -place
        plain.places[service] = place
        for series in log.join(service, place):
            plain.series[len(known)] = usual(chance, series.stratum)
            series.load(as_saved(plain.series[len(known)]))
            known.append(series)
    parts = [sample(chance, 0, SPAN_S), sample(chance, chance.randrange(SPAN_S), SPAN_S)]
    plain.take(merge(parts), SPAN_S)
    one, other = (Held(as_arrays(part)) for part in parts)
    step = 0
    for closed in sorted({*cuts, SPAN_S}):
        log.take(one, other, closed)
        while (tick := log.next_tick) is not None:
            while step < tick // 10:
                check_step(chance, log, known, plain, step)
                step += 1
            until = min(10 * (step + 1), closed + 1)
            assert [tuple(look) for look in log.walk(until, judged_from)] == plain.walk(until, judged_from)
    assert one.waits_from is other.waits_from is None
    for last in range(step, step + 3):
        check_step(chance, log, known, plain, last)


def check_step(chance: random.Random, log: CellLog, known: list[Series], plain: PlainLog, step: int) -> None:
    """A step ends for both alike, be it that something is under suspicion."""
    number = chance.randrange(len(known))
    if chance.random() < 0.3:
        known[number].suspect = plain.series[number].suspect = step
    known[number].routes = {1: RouteStanding(0, step, False)}
    plain.series[number].routes = {1: step}
    log.end_step(step)
    for series in known:
        series.end_step(step)
    plain.end_step(step)
    for series, one in zip(known, plain.series.values(), strict=True):
        got = {name: part if name == "standing" else part.tolist() for name, part in series.save().items()}
        assert got == saved(one)
        assert (series.mean, series.largest) == (one.mean, one.largest)


def test_who_was_a_stranger_is_known_by_what_came_since_the_step_and_a_place_that_is_given_up_is_empty() -> None:
    chance, log = random.Random(1), CellLog(SERVICES, None, None)
    held = Held(as_arrays(sample(chance, 0, 10)))
    log.take(held, None, 9)
    assert log.walk(10, 0) == []
    totals = log.strangers()
    assert set(totals) == {(7 + place, -place) for place in range(SERVICES + 1)}
    log.join((8, -1), 2)
    assert log.end_step(0)
    log.forget_strangers()
    assert log.strangers() == {}
    pages = log.window(2 * len(Stratum) + Stratum.PAGES, 9)
    mine = [total for tick, a, _, stratum, _, total in held.sample.cells.tolist() if a == 8 and stratum == Stratum.PAGES]
    assert [cell.total for cell in pages] == mine
    log.leave(2)
    assert log.window(2 * len(Stratum) + Stratum.PAGES, 9) == []
    assert not log.end_step(1)


def test_a_service_is_silent_once_nothing_of_it_is_kept_nor_known() -> None:
    chance, log = random.Random(1), CellLog(SERVICES, SIGNATURE, ENTROPY)
    log.take(Held(as_arrays(sample(chance, 0, 10))), None, 9)
    log.walk(10, 0)
    log.join((8, -1), 2)
    log.forget_strangers()
    assert not any(log.end_step(step) for step in range(STEPS + 1))
    assert not log.is_silent(2)
    assert any(log.end_step(step) for step in range(STEPS + 1, EMPTY_STEPS_MAX))
    assert log.is_silent(2)
