"""`signature` and `entropy`: what they name, what they leave alone, on tables of rows made from seeds."""

from __future__ import annotations

import doctest
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine.naming
from detectors import entropy, signature, surplus
from detectors import signature as conjunction
from detectors.entropy import repeats_of, repeats_shift, shifts
from detectors.signature import CLIENT, Explained, SignatureSection, Usual, explain
from detectors.surplus import (
    ADDRESS,
    COUNTRY,
    EMAIL_DOMAIN,
    NET,
    NET_WIDE,
    ROUTE,
    ROW_WORDS,
    USER_AGENT,
    WEIGHT,
    WHO,
    column,
    networks,
    span_of,
)
from schemas.columns import I64
from schemas.sample import Stratum

SECTION = SignatureSection()
HOMES = range(0x1000_0000, 0xF000_0000)
CLOUD = range(0xC612_0000, 0xC613_0000)
"""198.18.0.0/16"""


def rows(seed: int, count: int, routes: Sequence[int], agents: Sequence[int], places: range = HOMES, who: int = 0) -> I64:
    """Requests by chance, one address each."""
    random = np.random.default_rng(seed)
    found = np.zeros((count, ROW_WORDS), np.int64)
    found[:, WEIGHT], found[:, WHO] = 1, who
    found[:, ADDRESS] = (0xFFFF << 32) + random.integers(places.start, places.stop, count)
    found[:, ROUTE], found[:, USER_AGENT] = random.choice(routes, count), random.choice(agents, count)
    found[:, COUNTRY] = random.integers(1, 20, count)
    return found


def people(seed: int, count: int) -> I64:
    """Nine routes, twenty-five agents."""
    return rows(seed, count, range(1, 10), range(1, 26))


USUAL = Usual.of(people(1, 450), 100.0)


def found_in(
    *parts: I64, usual: Usual = USUAL, section: SignatureSection = SECTION, stratum: Stratum = Stratum.PAGES
) -> list[Explained]:
    window = np.concatenate([people(2, 100), *parts])
    return explain(window, window[:, WEIGHT].astype(np.float64), usual, [usual], section, stratum)


def named(found: list[Explained]) -> list[dict[int, int]]:
    return [dict(one.values) for one in found if one.acts]


@pytest.mark.parametrize("module", [signature, entropy, surplus, engine.naming])
def test_examples_print_what_they_say(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted
    assert result.failed == 0


def test_a_route_and_an_agent_that_go_together_are_named_together() -> None:
    assert named(found_in(rows(3, 300, [1], [7]))) == [{ROUTE: 1, USER_AGENT: 7}]


def test_a_network_is_named_however_its_requests_look() -> None:
    (one,) = found_in(rows(3, 300, range(1, 10), range(1, 26), CLOUD))
    assert dict(one.values) == {NET_WIDE: 0xFFFF_C612_0000}
    assert one.explained > 0.9
    assert one.collateral < 0.005


def test_several_agents_are_named_one_after_the_other() -> None:
    assert [one[USER_AGENT] for one in named(found_in(rows(3, 300, [1], [7]), rows(4, 150, [1], [8])))] == [7, 8]


def test_what_merely_grows_is_nobodys_signature() -> None:
    assert found_in(people(3, 900)) == []


def test_a_crowd_for_one_page_has_no_signature_and_is_told() -> None:
    (note,) = found_in(rows(3, 600, [30], range(1, 26)))
    assert not note.acts
    assert dict(note.values) == {ROUTE: 30}


def test_what_would_hit_more_than_the_bound_does_not_act() -> None:
    # One usual request in nine is for this page, one in five from this agent: together one in forty-five.
    usual = Usual.of(rows(1, 450, range(1, 10), range(1, 6)), 100.0)
    window = rows(3, 300, [1], [2])
    assert named(found_in(window, usual=usual)) == []
    wider = SignatureSection(collateral_max=0.05)
    assert named(found_in(window, usual=usual, section=wider)) == [{ROUTE: 1, USER_AGENT: 2}]


def test_collateral_counts_what_else_the_service_is_asked_for() -> None:
    calls = Usual.of(rows(5, 450, range(40, 50), [7]), 2000.0)
    window = np.concatenate([people(2, 100), rows(3, 300, range(1, 10), [7])])
    weights = window[:, WEIGHT].astype(np.float64)
    assert named(explain(window, weights, USUAL, [USUAL], SignatureSection(collateral_max=0.1), Stratum.PAGES))
    assert not named(explain(window, weights, USUAL, [USUAL, calls], SignatureSection(collateral_max=0.1), Stratum.PAGES))


def test_a_stratum_in_which_hardly_anything_comes_hits_nobody() -> None:
    few = Usual.of(people(6, 3), 1.0)
    window = rows(3, 300, [1], [77])
    weights = window[:, WEIGHT].astype(np.float64)
    assert named(explain(window, weights, few, [few, USUAL], SECTION, Stratum.FAILED)) == [{USER_AGENT: 77}]
    assert not named(explain(window, weights, few, [few], SECTION, Stratum.FAILED)), "nothing is known of this service"


FEW, QUIET = Usual.of(people(6, 3), 0.1), Usual.of(people(7, 60), 2.0)
"""What a quiet site knows after five minutes: hardly anything of what fails, and too little of the rest to act."""


def failing(*parts: I64, usual: Usual = FEW, everything: Sequence[Usual] = (FEW, QUIET)) -> list[Explained]:
    window = np.concatenate(parts)
    return explain(window, window[:, WEIGHT].astype(np.float64), usual, everything, SECTION, Stratum.FAILED)


def test_people_are_told_of_clients_of_whom_too_little_is_known_to_act() -> None:
    (note,) = failing(rows(3, 48, range(1000, 2000), range(1, 26), CLOUD))
    assert not note.acts
    assert dict(note.values) == {NET_WIDE: 0xFFFF_C612_0000}
    assert note.collateral > SECTION.collateral_max, "what it may be"
    assert note.explained > 0.9


def test_clients_of_whom_enough_is_known_are_not_told_as_if_it_were_not() -> None:
    # Forty in sixty of this site's people come from there.
    usual = Usual.of(np.concatenate([people(7, 20), rows(8, 40, range(1, 10), range(1, 26), CLOUD)]), 2.0)
    assert failing(rows(3, 48, range(1000, 2000), range(1, 26), CLOUD), everything=[FEW, usual]) == []


@pytest.mark.parametrize("known", [0, 1, 3])
def test_a_route_is_told_where_nothing_has_ever_failed(known: int) -> None:
    usual = Usual.of(people(6, known), known / 30)
    (note,) = failing(rows(3, 25, [1000], range(100, 200)), usual=usual, everything=[usual, QUIET])
    assert dict(note.values) == {ROUTE: 1000}


def test_a_route_for_which_everything_is_that_comes_is_not_told() -> None:
    window = rows(3, 25, [1000], range(100, 200))
    usual = Usual.of(rows(4, 2, [1000], [7]), 0.1)
    assert failing(window, usual=usual, everything=[usual, QUIET]) == []
    none = Usual.of(people(6, 0), 0.0)
    weights = window[:, WEIGHT].astype(np.float64)
    assert explain(window, weights, none, [none, QUIET], SECTION, Stratum.REGISTERED) == [], "who registers asks for one route"


def test_where_next_to_nothing_is_known_nothing_is_told() -> None:
    one, few = Usual.of(people(6, 1), 0.1), Usual.of(people(7, 15), 0.5)
    assert failing(rows(3, 48, [1000], range(1, 26), CLOUD), usual=one, everything=[one, few]) == []


@pytest.mark.parametrize("sources", [1, 4])
def test_people_are_not_told_of_a_few_sources_that_fail(sources: int) -> None:
    window = rows(3, 48, range(1000, 2000), range(1, 26), CLOUD)
    window[:, ADDRESS] = window[np.arange(48) % sources, ADDRESS]
    assert failing(window) == []


def test_of_a_route_and_of_clients_people_are_told_what_explains_more() -> None:
    logins = rows(3, 16, [1000], [77]), rows(4, 5, [1000], range(80, 85))
    (note,) = failing(*logins)
    assert dict(note.values) == {ROUTE: 1000}, "all of it; one agent has three quarters"
    (note,) = failing(*logins[:1])
    assert dict(note.values) == {USER_AGENT: 77}


@pytest.mark.parametrize("sources", [1, 4])
def test_few_sources_are_judged_one_by_one(sources: int) -> None:
    window = rows(3, 300, [1], [77])
    window[:, ADDRESS] = window[np.arange(300) % sources, ADDRESS]
    assert named(found_in(window)) == []


def test_one_account_behind_many_addresses_is_one_source() -> None:
    assert named(found_in(rows(3, 300, [1], [77], who=9))) == []


def test_a_country_or_a_mail_domain_alone_is_never_named() -> None:
    window = people(3, 300)
    window[:, COUNTRY], window[:, EMAIL_DOMAIN] = 99, 98
    assert found_in(window, stratum=Stratum.REGISTERED) == []


def test_a_mail_domain_is_looked_at_in_registrations_only() -> None:
    window = rows(3, 300, range(1, 10), [7])
    window[:, EMAIL_DOMAIN] = 98
    assert EMAIL_DOMAIN in named(found_in(window, stratum=Stratum.REGISTERED))[0]
    assert all(EMAIL_DOMAIN not in one for one in named(found_in(window)))


def test_what_has_no_whole_text_is_not_named() -> None:
    window = np.concatenate([people(2, 100), rows(3, 300, [1], [77])])
    weights = window[:, WEIGHT].astype(np.float64)
    assert explain(window, weights, USUAL, [USUAL], SECTION, Stratum.PAGES, {1}) != []
    assert not named(explain(window, weights, USUAL, [USUAL], SECTION, Stratum.PAGES, {1}))


def test_what_was_named_stays_as_long_as_it_holds() -> None:
    standing = [((USER_AGENT, 77),)]
    window = np.concatenate([people(2, 100), rows(3, 300, [1], [77])])
    weights = window[:, WEIGHT].astype(np.float64)
    again = explain(window, weights, USUAL, [USUAL], SECTION, Stratum.PAGES, None, standing)
    assert [one.values for one in again] == standing
    over = np.concatenate([people(2, 100), rows(3, 300, [1], [78])])
    assert standing[0] not in [
        one.values for one in explain(over, weights, USUAL, [USUAL], SECTION, Stratum.PAGES, None, standing)
    ]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), extra=st.integers(20, 400), routes=st.integers(1, 9), agents=st.integers(1, 25))
def test_what_acts_is_within_its_bounds_and_counted_rightly(seed: int, extra: int, routes: int, agents: int) -> None:
    """Against a count in plain Python over every conjunction of two of the attributes that were mixed."""
    window = np.concatenate([people(2, 100), rows(seed, extra, range(1, routes + 1), range(1, agents + 1))])
    found = explain(window, window[:, WEIGHT].astype(np.float64), USUAL, [USUAL], SECTION, Stratum.PAGES)
    left = window
    for one in found:
        matching = [row for row in left.tolist() if all(_value(row, attribute) == word for attribute, word in one.values)]
        usual = [row for row in USUAL.rows.tolist() if all(_value(row, attribute) == word for attribute, word in one.values)]
        assert one.observed == len(matching)
        assert one.usual == pytest.approx(100.0 * len(usual) / 450)
        assert one.explained == pytest.approx((len(matching) - one.usual) / extra)
        assert one.collateral == pytest.approx((len(usual) + 1) / 451)
        if one.acts:
            assert one.collateral <= SECTION.collateral_max
            assert one.explained >= 10 * one.collateral
            assert not CLIENT.isdisjoint(attribute for attribute, _ in one.values)
        left = left[~conjunction.matching(one.values, left)]


def _value(row: list[int], attribute: int) -> int:
    if attribute == NET:
        return row[ADDRESS] & ~0xFF
    return row[ADDRESS] & ~0xFFFF if attribute == NET_WIDE else row[attribute]


def test_networks_are_those_of_prefixes() -> None:
    addresses = np.array([0xFFFF_C633_6407, 0x2001_0DB8_0007_0009], np.int64)
    assert [hex(word) for word in networks(addresses, wide=False).tolist()] == ["0xffffc6336400", "0x20010db800070000"]
    assert [hex(word) for word in networks(addresses, wide=True).tolist()] == ["0xffffc6330000", "0x20010db800000000"]
    assert span_of(-1) == ((1 << 128) - (1 << 64), (1 << 128) - 1)


def test_collision_entropy_is_the_same_for_any_size_of_the_sample() -> None:
    for count in (60, 120, 640):
        assert shifts(people(count, count), USUAL.rows, 0.7) == []


def test_shifts_are_told_in_both_directions() -> None:
    narrow = shifts(rows(3, 300, range(1, 10), [7]), USUAL.rows, 0.7)
    assert [one.what for one in narrow] == ["user agents"]
    assert narrow[0].now < narrow[0].usual
    wide = shifts(rows(3, 300, range(1, 10), range(1, 200)), USUAL.rows, 0.7)
    assert [one.what for one in wide] == ["user agents"]
    assert wide[0].now > wide[0].usual


def test_entropies_count_each_address_once() -> None:
    one = np.repeat(rows(9, 1, [1], [1]), 500, axis=0)
    assert shifts(np.concatenate([people(2, 100), one]), USUAL.rows, 0.7) == []


def test_more_people_come_as_often_each_and_a_botnet_does_not() -> None:
    def window(sources: int, each: int) -> int | None:
        return repeats_of(Stratum.PAGES, np.repeat(people(3, sources), each, axis=0), sources * each, 0)

    usual = [repeats for repeats in (window(20 + step, 10) for step in range(8)) if repeats is not None]
    assert repeats_shift(Stratum.PAGES, window(100, 10), usual) is None
    fewer = repeats_shift(Stratum.PAGES, window(400, 1), usual)
    assert fewer is not None
    assert fewer.now < fewer.usual
    assert repeats_shift(Stratum.PAGES, window(3, 300), usual) is not None
    assert repeats_shift(Stratum.ASSETS, window(3, 300), usual) is None, "one restored window of tabs"


def test_many_accounts_that_ask_for_less_each_are_told_and_a_storm_of_the_usual_ones_is_not() -> None:
    some = people(3, 100)
    usual = [2_000] * 10
    assert repeats_shift(Stratum.ACCOUNTS, repeats_of(Stratum.ACCOUNTS, some, 1000, 800), usual) is not None
    assert repeats_shift(Stratum.ACCOUNTS, repeats_of(Stratum.ACCOUNTS, some, 8000, 800), usual) is None


def test_columns_differ() -> None:
    table = rows(1, 5, [1], [2])
    assert not any(a == b for a, b in combinations((ROUTE, USER_AGENT, NET, NET_WIDE), 2))
    np.testing.assert_array_equal(column(table, ROUTE), np.ones(5))
