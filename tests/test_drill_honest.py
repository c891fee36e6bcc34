"""The honest traffic of a drill: seeded, as bursty as real traffic, with everything in it that looks like an attack."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np
import orjson
import pytest

from drills.columns import FLAG_NEW_ACCOUNT, Events, generator
from drills.honest.calls import STREAM_S
from drills.honest.sources import NAMES, SIGN_UPS, honest_sources
from drills.labels import known_lists, labels_of
from drills.render import cost_micro, in_stream
from drills.run import START_S, Drill
from drills.service.calendar import DAY_S
from drills.service.season import Season
from drills.service.shapes import SHAPE_OF
from drills.service.words import DOMAIN_OF_CUSTOMER, DOMAINS
from schemas.config import DEFAULT_ALLOWLIST_CORE
from schemas.errors import UsageError
from schemas.fields import Flag
from tests.drills import HOUR_S, busiest, decoded, drill_of, events_of, honest_hour, joined

MIXED = ("flood_fifty", "registrations_obvious")


def addresses_of(drill: Drill, events: Events) -> np.ndarray:
    return np.array(drill.world.actors.addresses_of(events["actor"]))


def objects(drill: Drill, events: Events, stream: str, access_format: str = "json") -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in joined(drill, events, stream, access_format).splitlines()]


def test_the_same_seed_gives_the_same_bytes_whatever_the_blocks_and_another_seed_others() -> None:
    whole, pieces, other = (drill_of(*MIXED, seed=seed, span_s=300, events_per_second=10) for seed in (7, 7, 8))
    at_once, in_minutes = events_of(whole, 10_000), events_of(pieces, 60)
    for stream in ("requests", "registrations", "access-log", "events"):
        assert joined(whole, at_once, stream) == joined(pieces, in_minutes, stream)
    assert joined(whole, at_once, "events") != joined(other, events_of(other), "events")


def test_an_attack_changes_nothing_about_the_honest_traffic_beside_it() -> None:
    alone, attacked = drill_of(span_s=240), drill_of(*MIXED, span_s=240)
    events = events_of(attacked)
    assert len(np.unique(events["attack"])) == 3
    assert joined(attacked, events[events["attack"] == 0], "events") == joined(alone, events_of(alone), "events")


def test_any_minutes_can_be_made_without_those_before_them() -> None:
    long, late = drill_of(span_s=600), drill_of(start_s=START_S + 300, span_s=300)
    events = events_of(long)
    assert joined(long, events[events["time_ms"] >= (START_S + 300) * 1000], "events") == joined(
        late, events_of(late), "events"
    )


def test_events_are_in_the_order_of_their_completion_and_within_the_drill() -> None:
    drill, events = honest_hour()
    assert (np.diff(events["time_ms"]) >= 0).all()
    assert events["time_ms"][0] >= drill.plan.start_s * 1000
    assert events["time_ms"][-1] < drill.stop_s * 1000
    assert len(np.unique(events["id"])) == len(events)


def test_people_are_at_least_as_bursty_as_the_real_web_shop() -> None:
    # Batch jobs would make this easy: only people's browsers count here. The shop: 44, 222 and 239.
    only = frozenset({"people", "carrier", "offices"})
    drill = drill_of(span_s=HOUR_S, start_s=START_S + 14 * HOUR_S, events_per_second=60, only=only)
    events = events_of(drill)
    who = addresses_of(drill, events)
    assert busiest(who, events["time_ms"], 1000) >= 44
    assert busiest(who, events["time_ms"], 10_000) >= 222
    assert busiest(who, events["time_ms"], 60_000) >= 239
    pages = np.isin(events["shape"], [SHAPE_OF[name] for name in ("script", "style", "image", "icon")])
    assert busiest(who[~pages], events["time_ms"][~pages], 10_000) < 100, "nearly all of that is assets"


def test_the_rate_is_what_was_asked_for_and_follows_the_hours_and_the_week() -> None:
    season = Season(7, "people")
    monday = START_S // 60
    week = np.array([season.level(monday + cell) for cell in range(0, 7 * 1440, 30)])
    assert week.mean() == pytest.approx(1.0, abs=0.05)
    days = week.reshape(7, 48).mean(axis=1)
    assert days[5:].max() < 0.9 * days[:5].min()
    assert week[:48].max() > 1.3 * week[:48].min()
    sources = honest_sources(drill_of(span_s=7 * DAY_S, storms="calendar").world)
    cells = range(monday, monday + 7 * 1440, 131)
    events = sum(
        len(sources[number](cell, generator(7, number, cell))) for cell in cells for number in NAMES if number != SIGN_UPS
    )
    assert events / 60 / len(cells) == pytest.approx(20, rel=0.2), "the rest of it are people who sign up"


def test_every_storm_of_honest_traffic_is_there() -> None:
    drill, events = honest_hour()
    actors = drill.world.actors
    key, who = np.array(actors.keys_of(events["actor"])), addresses_of(drill, events)
    began = (events["time_ms"] - events["duration_ms"]) // 1000

    job = drill.world.named("batch")[0]
    machines = events[np.isin(events["actor"], drill.world.groups["batch"].actors[0])]
    second = (machines["time_ms"] - machines["duration_ms"]) // 1000
    assert len(np.unique(np.array(actors.key)[machines["actor"]])) == 1
    assert np.isin(second, range(job.start_s, job.stop_s)).sum() == 300 * (job.stop_s - job.start_s)

    functions = np.char.startswith(who, "198.51.100.")
    assert len(np.unique(key[functions])) > 600
    assert events["duration_ms"].max() > 1000 * STREAM_S[0]

    outage = drill.world.named("outage")[0]
    asked = in_stream(events, "requests") & np.isin(events["actor"], drill.world.groups["customers"].everyone())
    during = asked & (began >= outage.start_s) & (began < outage.stop_s)
    after = asked & (began >= outage.stop_s) & (began < outage.stop_s + 120)
    before = asked & (began >= outage.start_s - 120) & (began < outage.start_s)
    assert set(events["status"][during].tolist()) == {503}
    assert after.sum() > 1.5 * before.sum()
    assert (events["status"][after] == 503).sum() == 0

    crowd = np.isin(events["actor"], drill.world.groups["crowd"].everyone())
    assert crowd.sum() > 1000
    assert (events["shape"][crowd] == SHAPE_OF["article"]).sum() > 20

    crawled = np.isin(events["actor"], drill.world.groups["crawlers"].actors[0])
    assert len(np.unique(events["path"][crawled])) > 300

    carrier = np.unique(who[np.isin(events["actor"], drill.world.groups["carrier"].actors[0])])
    assert 20 < len(carrier) <= 32

    move = drill.world.named("migration")[0]
    new = np.isin(events["actor"], drill.world.groups["migrating_new"].actors[0])
    old = np.isin(events["actor"], drill.world.groups["migrating_old"].actors[0])
    assert began[new].min() >= move.start_s
    assert new[began >= move.stop_s].sum() > 10 * max(1, old[began >= move.stop_s].sum())
    assert not set(who[new]) & set(who[old])

    campaign = drill.world.named("marketing")[0]
    signed = events["shape"] == SHAPE_OF["register"]
    within = signed & (began >= campaign.start_s) & (began < campaign.stop_s)
    assert within.sum() / (campaign.stop_s - campaign.start_s) > 4 * signed.sum() / HOUR_S / 2


def test_storms_come_at_their_hours_of_the_week() -> None:
    drill = drill_of(span_s=14 * DAY_S, storms="calendar")
    names = [episode.name for episode in drill.world.episodes]
    for name in ("outage", "flash_crowd", "marketing", "migration"):
        assert names.count(name) == 2
    assert names.count("batch") >= 14 * 3
    assert drill_of(storms="none").world.episodes == ()


def test_the_access_log_has_the_gateways_requests_and_the_registrations() -> None:
    drill, events = honest_hour()
    some = events[:20_000]
    in_log = {line["request_id"]: line for line in objects(drill, some, "access-log")}
    for stream in ("requests", "registrations"):
        for line in objects(drill, some, stream):
            same = in_log[line["request_id"]]
            for name in ("time", "client_ip", "status", "method", "path", "user_agent", "duration_ms"):
                assert same[name] == line[name]
            if stream == "requests":
                assert same.get("api_key_hash") == line.get("api_key_hash")
    assert len(objects(drill, some, "events")) == len(in_log) == len(some)


def test_an_account_is_used_after_its_registration_and_never_before() -> None:
    drill, events = honest_hour()
    made: dict[str, str] = {}
    for line in objects(drill, events, "registrations"):
        assert ("account" in line) == (line["status"] == 201)
        if "account" in line:
            made.setdefault(line["account"], line["time"])
    used = events[(events["flags"] & FLAG_NEW_ACCOUNT > 0) & in_stream(events, "requests")]
    calls = [line for line in objects(drill, used, "requests") if line["account"] in made]
    assert len(calls) > 50
    assert len({line["account"] for line in calls}) > 20
    assert all(line["time"] > made[line["account"]] for line in calls)


@pytest.mark.parametrize("stream", ["requests", "registrations", "access-log", "access-log json", "events"])
def test_every_line_is_read_by_our_decoder_and_is_the_event_that_its_label_is_for(stream: str) -> None:
    drill = drill_of("trap_framed_key", "invalid_keys", "registrations_obvious", "trap_spoofed", "scan", span_s=300)
    events = events_of(drill)
    name, _, form = stream.partition(" ")
    read = decoded(joined(drill, events, name, form or "combined"))
    mine = events if name == "events" else events[in_stream(events, name)]
    assert len(labels_of(events, name)) == len(read["time_ms"]) == len(mine) > 0
    resolution = 1000 if stream == "access-log" else 1
    np.testing.assert_array_equal(read["time_ms"] // resolution, mine["time_ms"] // resolution)
    np.testing.assert_array_equal(read["status"], mine["status"])
    expected = [int(ipaddress.ip_address(text)) for text in addresses_of(drill, mine)]
    low = [value if value >> 32 else value | 0xFFFF << 32 for value in expected]
    assert [value & (1 << 64) - 1 for value in low] == read["ip_low"].tolist()
    assert [value >> 64 for value in low] == read["ip_high"].tolist()
    if name == "requests":
        np.testing.assert_array_equal(np.maximum(read["cost"], 0), cost_micro(mine))
    if name == "registrations":
        assert (read["flags"] & Flag.REGISTRATION > 0).all()


def test_nobody_honest_is_labelled_and_nobodys_address_is_on_the_allowlists_core() -> None:
    drill = drill_of("botnet", "carpet_network", "residential", "flood_fifty", "stuffing_slow")
    actors, honest = drill.world.actors, drill.world.honest_actors
    hostile = set(actors.address[honest:])
    assert not hostile & set(actors.address[:honest])
    assert len(hostile) == len(actors) - honest
    core = [ipaddress.ip_network(text) for text in DEFAULT_ALLOWLIST_CORE]
    numbers = [ipaddress.ip_address(text) for text in actors.address]
    for network in core:
        assert not any(number.version == network.version and number in network for number in numbers)
    assert DOMAIN_OF_CUSTOMER in DOMAINS
    assert set(known_lists()["crawlers"]) <= set(actors.address[:honest])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"span_s": 0}, "expected a drill of 1 s to 366 days, got 0 s"),
        ({"events_per_second": 1e6}, "expected 0.01 to 20,000 honest events a second"),
        ({"events_per_second": float("nan")}, "expected 0.01 to 20,000 honest events a second"),
        ({"start_s": -5}, "expected a drill to begin from 1970 to 2199"),
        ({"seed": -1}, "expected a seed from 0"),
        ({"attacks": ("scan", "scan")}, "expected each attack once"),
        ({"attacks": ("bottnet",)}, "expected an attack of `floodwall drill list`"),
        ({"attacks": ("scan",), "at_s": (1, 2)}, "expected as many beginnings as attacks"),
        ({"attacks": ("scan",), "at_s": (600,)}, "expected scan to begin in the drill's 600 s, got 600 s"),
    ],
)
def test_a_plan_that_cannot_be_says_why(settings: dict[str, Any], said: str) -> None:
    attacks = settings.pop("attacks", ())
    with pytest.raises(UsageError) as refused:
        drill_of(*attacks, **settings)
    assert said in str(refused.value)
