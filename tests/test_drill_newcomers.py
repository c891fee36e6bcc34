"""Who signs up in a drill: homes that hardly ever come again, networks that many share, and nobody who has to be in a table."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest

from drills.columns import I64
from drills.honest.signups import SHARED_SHARE, SignUps
from drills.honest.sources import SIGN_UPS
from drills.render import lines
from drills.run import START_S
from drills.service.actors import network_target
from drills.service.addresses import COUNTRIES_OF_REGION, asns_of, countries_of, text_of
from drills.service.newcomers import FIRST, Newcomers
from drills.service.season import REGIONS
from drills.service.world import World
from schemas.config import DEFAULT_ALLOWLIST_CORE
from tests.drills import drill_of, events_of

ONE_REGION = np.eye(3)


def homes(newcomers: Newcomers, count: int, region: int) -> I64:
    return newcomers.homes(np.random.default_rng(5).integers(0, 1 << 63, count).astype(np.uint64), ONE_REGION[region])


@pytest.mark.parametrize("region", range(3))
def test_a_newcomer_is_the_same_whoever_asks_and_in_the_region_that_it_is_said_to_be_in(region: int) -> None:
    newcomers, again = Newcomers(7), Newcomers(7)
    numbers = homes(newcomers, 4000, region)
    places = newcomers.addresses_of(numbers)
    assert (places == again.addresses_of(numbers[::-1])[::-1]).all()
    assert (newcomers.agents_of(numbers) == again.agents_of(numbers)).all()
    assert not (places == Newcomers(8).addresses_of(numbers)).all()
    assert set(countries_of(places)) == set(COUNTRIES_OF_REGION[REGIONS[region]])
    assert 0.2 < (places >= 1 << 32).mean() < 0.3
    assert len(np.unique(places)) == len(numbers)
    assert len(np.unique(asns_of(places))) > 50


def test_people_in_a_shared_network_have_addresses_of_one_network_and_programs_of_their_own() -> None:
    newcomers = Newcomers(7)
    numbers = newcomers.sharing(np.random.default_rng(3), ONE_REGION[0], 4000)
    texts = texts_of(newcomers, numbers)
    busiest, counts = np.unique(numbers >> 15, return_counts=True)
    mine = numbers >> 15 == busiest[counts.argmax()]
    assert 0.08 < counts.max() / len(numbers) < 0.15
    assert len({network_target(text) for text, here in zip(texts, mine, strict=True) if here}) == 1
    assert len({text for text, here in zip(texts, mine, strict=True) if here}) > 100
    assert len(np.unique(newcomers.agents_of(numbers[mine]))) > 3


def texts_of(newcomers: Newcomers, numbers: I64) -> list[str]:
    return [text_of(place) for place in newcomers.addresses_of(numbers).tolist()]


def test_of_a_day_hardly_anybody_signs_up_twice_and_a_quarter_comes_from_where_others_did() -> None:
    world = World(seed=7, start_s=START_S, stop_s=START_S + 86_400, events_per_second=2.0, storms="none")
    sign_ups, days = SignUps(world, SIGN_UPS), []
    for day in range(2):
        first = START_S // 60 + 1440 * day
        days.append(np.concatenate([sign_ups._who(cell, world.people.regions(cell), 6) for cell in range(first, first + 1440)]))
    (yesterday, today), actors = days, world.actors
    nets = [np.array([network_target(text) for text in actors.addresses_of(day)]) for day in (yesterday, today)]
    known = np.isin(nets[1], nets[0])
    assert 0.15 < known.mean() < 0.3
    _, counts = np.unique(nets[1][~known], return_counts=True)
    assert 0.02 < (counts - 1).sum() / len(today) < 0.06
    at_home = (today >= FIRST) & (today >> 27 & 1 == 0)
    assert abs((1 - at_home.mean()) - SHARED_SHARE - 0.04) < 0.07
    assert 0.01 < 1 - len(np.unique(today[at_home])) / at_home.sum() < 0.05


def test_newcomers_are_written_as_everybody_is_and_are_on_no_allowlist() -> None:
    drill = drill_of(span_s=3600, events_per_second=20, only=frozenset({"sign_ups"}))
    events, actors = events_of(drill), drill.world.actors
    new = events[events["actor"] >= FIRST]
    assert len(new) > len(events) / 2
    assert len(actors) < FIRST
    core = [ipaddress.ip_network(text) for text in DEFAULT_ALLOWLIST_CORE]
    for text in set(actors.addresses_of(new["actor"])):
        assert not any(ipaddress.ip_address(text) in network for network in core)
    written = lines(new[:50], actors, "access-log", "json")
    for line, address, agent in zip(written, actors.addresses_of(new["actor"]), actors.agents_of(new["actor"]), strict=False):
        assert f'"client_ip":"{address}"'.encode() in line
        assert f'"user_agent":"{agent}"'.encode() in line
    assert set(actors.keys_of(new["actor"])) == {""}
    assert set(actors.key_json_of(new["actor"])) == {b""}
