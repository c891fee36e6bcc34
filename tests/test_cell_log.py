"""Cells of strata in one table: windows and steps hold what plain Python says, whatever comes together, however it is cut."""

from __future__ import annotations

import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cell_log import CellLog
from engine.sampling import Held
from schemas.sample import KEPT, Attribute, Stratum
from tests.oracles.sampling import Cell, Plain, as_arrays, merge
from tests.oracles.strata import PlainLog

SERVICES, SPAN_S = 3, 47
ENDS = (0, 1 << 60, 1 << 63, (1 << 64) - 1)


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


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, SPAN_S), max_size=6), st.sampled_from((-100, 15)))
def test_windows_and_steps_are_those_of_plain_python(seed: int, cuts: list[int], judged_from: int) -> None:
    chance, log, plain = random.Random(seed), CellLog(SERVICES), PlainLog()
    for place in range(SERVICES):
        service = 7 + place, -place
        log.join(service, place)
        plain.places[service] = place
        for stratum in Stratum:
            series = len(Stratum) * place + stratum
            plain.bounds[series] = (
                chance.choice([0.0, 20.5, 300.0, math.inf]), chance.choice([100.0, math.inf]), chance.choice([0.0, 60.0])
            )  # fmt: skip
        log.set_bounds(place, [plain.bounds[len(Stratum) * place + stratum] for stratum in Stratum])
    parts = [sample(chance, 0, SPAN_S), sample(chance, chance.randrange(SPAN_S), SPAN_S)]
    plain.take(merge(parts), SPAN_S)
    one, other = (Held(as_arrays(part)) for part in parts)
    step = 0
    for closed in sorted({*cuts, SPAN_S}):
        log.take(one, other, closed)
        while (tick := log.next_tick) is not None:
            while step < tick // 10:
                check_step(log, plain, 10 * step)
                step += 1
            until = min(10 * (step + 1), closed + 1)
            assert [tuple(look) for look in log.walk(until, judged_from)] == plain.walk(until, judged_from)
    assert one.waits_from is other.waits_from is None
    check_step(log, plain, 10 * step)


def check_step(log: CellLog, plain: PlainLog, end: int) -> None:
    """A step ends for both alike."""
    for series, ended in enumerate(log.end_step(end)):
        numbers, lowest, routes = plain.end_step(end, series)
        assert tuple(ended[:6]) == numbers
        assert ended.lowest.tolist() == lowest.tolist()
        assert ended.routes.tolist() == [[one.route, round(one.total), one.repeats] for one in routes]
    plain.drop(end)


def test_who_was_a_stranger_is_known_by_what_came_since_the_step_and_a_place_that_is_given_up_is_empty() -> None:
    chance, log = random.Random(1), CellLog(SERVICES)
    held = Held(as_arrays(sample(chance, 0, 10)))
    log.take(held, None, 9)
    assert log.walk(10, 0) == []
    totals = log.strangers()
    assert set(totals) == {(7 + place, -place) for place in range(SERVICES + 1)}
    log.join((8, -1), 2)
    log.forget_strangers()
    assert log.strangers() == {}
    pages = log.window(2 * len(Stratum) + Stratum.PAGES, 9)
    mine = [total for tick, a, _, stratum, _, total in held.sample.cells.tolist() if a == 8 and stratum == Stratum.PAGES]
    assert [cell.total for cell in pages] == mine
    assert log.has_cells(2)
    log.leave(2)
    assert not log.has_cells(2)
    assert log.window(2 * len(Stratum) + Stratum.PAGES, 9) == []
    assert [ended.cells for ended in log.end_step(10)] == [0] * (SERVICES * len(Stratum))
