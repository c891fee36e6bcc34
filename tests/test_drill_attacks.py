"""The attacks of a drill are what the table says, and what is labelled is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from drills import reference
from drills.attacks.base import Hostile, Sent
from drills.attacks.catalogue import ATTACKS, prepared
from drills.attacks.strengths import STRENGTH_NAMES, STRENGTHS, StrengthName, strength_of
from drills.columns import CELL_S, Events, concatenated, generator, no_events
from drills.honest.signups import REGISTRATIONS_SHARE
from drills.labels import Truth, labels_of
from drills.render import in_stream
from drills.run import START_S
from drills.service.actors import address_target, new_account
from drills.service.shapes import SHAPE_OF, SHAPES
from drills.service.world import World
from tests.drills import DAY_S, drill_of, events_of, joined

PER_SECOND = 20.0
DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=7, start_s=START_S, stop_s=START_S + DAY_S, events_per_second=PER_SECOND, storms="none")


def drawn(hostile: Hostile) -> Events:
    cells = range(hostile.start_s // CELL_S, hostile.stop_s // CELL_S + 1)
    return concatenated([hostile.draw(cell, generator(7, hostile.number, cell)) for cell in cells])


def only_times(sent: Sent, random: np.random.Generator) -> Events:
    """Instead of what an attack asks for: quick, for the loud ones."""
    events = no_events(len(sent))
    events["time_ms"], events["actor"] = sent.start_ms, sent.actor
    return events


@pytest.mark.parametrize("strength", STRENGTH_NAMES)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_has_the_rate_the_sources_and_the_duration_of_the_table(
    name: str, strength: StrengthName, world: World
) -> None:
    hostile = prepared(world, name, strength, START_S, 1)
    first = hostile.waves[0]
    if strength == "loud":
        first.fill = only_times
    hostile.waves = [first]
    events, wanted = drawn(hostile), strength_of(name, strength)
    began = events["time_ms"] - events["duration_ms"]
    assert began.min() >= START_S * 1000
    assert began.max() < (START_S + wanted.duration_s) * 1000
    if len(events) > 50:
        assert began.max() - began.min() > 800 * wanted.duration_s
    normal = PER_SECOND * (REGISTRATIONS_SHARE if ATTACKS[name].registers else 1)
    total, sources = wanted.numbers(normal)
    assert len(events) == total
    assert len(np.unique(events["actor"])) == sources == min(wanted.sources, total)
    assert len({world.actors.address[actor] for actor in np.unique(events["actor"]).tolist()}) == sources
    if wanted.share is not None:
        assert total / wanted.duration_s == pytest.approx(wanted.share * normal, rel=0.5 if total < 20 else 0.03)
    else:
        assert total / sources / wanted.duration_s == pytest.approx(wanted.per_source, rel=0.02)
    if name != "residential":
        counts = np.unique(events["actor"], return_counts=True)[1]
        assert counts.max() - counts.min() <= 1
    else:
        counts = np.unique(events["actor"], return_counts=True)[1]
        assert set(counts.tolist()) <= {1, 2, 3}
    assert (events["attack"] == 1).all()


def test_weak_is_weaker_than_ordinary_and_loud_is_louder() -> None:
    assert ATTACKS.keys() == STRENGTHS.keys()
    for name, attack in ATTACKS.items():
        normal = 350 * (REGISTRATIONS_SHARE if attack.registers else 1)
        rates = [strength.numbers(normal)[0] / strength.duration_s for strength in STRENGTHS[name]]
        assert rates[0] < rates[1] < rates[2], name
        assert len(attack.text) > 20


def test_what_stock_rules_miss_is_there_as_it_was_measured() -> None:
    flood, login, registrations = (strength_of(f"stock_{name}", "ordinary") for name in ("flood", "login", "registrations"))
    assert (flood.sources, flood.per_source) == (50, 200)
    assert (login.sources, login.per_source) == (300, 1 / 60)
    assert (registrations.sources, registrations.per_source) == (2000, 1 / 30)
    assert strength_of("stock_key", "ordinary").sources == 500


def attack_events(world: World, name: str) -> tuple[Hostile, Events]:
    hostile = prepared(world, name, "weak", START_S, 1)
    return hostile, drawn(hostile)


def test_each_attack_does_what_its_name_says(world: World) -> None:
    shape = lambda events, *names: np.isin(events["shape"], [SHAPE_OF[name] for name in names])  # noqa: E731
    for name in ("stuffing_loud", "stuffing_slow"):
        events = attack_events(world, name)[1]
        assert shape(events, "login").all()
        assert (events["status"] == 401).mean() > 0.95
    scanned = attack_events(world, "scan")[1]
    assert len(np.unique(scanned["path"])) > 50
    assert (scanned["status"] == 404).mean() > 0.8
    invalid = attack_events(world, "invalid_keys")[1]
    assert len(np.unique(invalid["number"])) == len(invalid)
    assert (invalid["status"] == 401).all()
    streams = attack_events(world, "stream_exhaustion")[1]
    assert streams["duration_ms"].min() >= 540_000
    slow = attack_events(world, "slow_requests")[1]
    assert (slow["duration_ms"].min() >= 60_000, slow["bytes"].max()) == (True, 0)
    prompts = attack_events(world, "cancelled_prompts")[1]
    assert (prompts["tokens_in"].min() >= 60_000, prompts["tokens_out"].max(), set(prompts["status"].tolist())) == (
        True,
        0,
        {499},
    )
    inflated = attack_events(world, "max_tokens")[1]
    assert set(inflated["max_tokens"].tolist()) == {128_000}
    assert inflated["tokens_out"].mean() < 100
    assert len(np.unique(attack_events(world, "cache_busting")[1]["path"])) == len(attack_events(world, "cache_busting")[1])
    routes = attack_events(world, "carpet_routes")[1]
    assert len(np.unique(routes["shape"])) >= len(SHAPES) - 4
    hosts = {
        world.actors.address[actor].rsplit(".", 2)[0] for actor in attack_events(world, "carpet_network")[1]["actor"].tolist()
    }
    assert hosts == {"250.77"}
    for name in ("key_shared", "stock_key", "leaked_key_loud", "leaked_key_quiet"):
        hostile, events = attack_events(world, name)
        assert len({world.actors.key[actor] for actor in events["actor"].tolist()}) == 1
        assert ("account" in hostile.victims) == name.startswith("leaked")


def test_credits_are_used_by_the_accounts_that_were_registered_for_them() -> None:
    drill = drill_of("credit_farming", span_s=5400, at_s=(0,), honest=False, strength="loud", events_per_second=100)
    events = events_of(drill)
    made = events[events["shape"] == SHAPE_OF["register"]]
    used = events[events["shape"] == SHAPE_OF["chat"]]
    assert set(used["number"].tolist()) == set(made["number"].tolist())
    assert len(used) == 12 * len(made)
    when = dict(zip(made["number"].tolist(), made["time_ms"].tolist(), strict=True))
    assert all(event["time_ms"] - event["duration_ms"] > when[int(event["number"])] for event in used)


def test_who_is_framed_is_named_as_a_victim_and_never_proven() -> None:
    drill = drill_of("trap_framed_key", "trap_framed_domain", "trap_spoofed")
    events = events_of(drill)
    actors = drill.world.actors
    key, domain, spoofed = drill.hostile
    (framed,), (account,) = key.victims["api_key"], key.victims["account"]
    tried = [orjson.loads(line) for line in joined(drill, events[events["attack"] == 1], "requests").splitlines()]
    assert all((line["api_key_hash"], line["account"]) == (framed, account) for line in tried)
    assert all(line["auth_failed"] and line["status"] == 401 for line in tried)
    honest = events[(events["attack"] == 0) & in_stream(events, "requests")]
    assert framed in set(actors.keys_of(honest["actor"])), "the victim is somebody who is there"
    signed = [orjson.loads(line) for line in joined(drill, events[events["attack"] == 2], "registrations").splitlines()]
    assert {line["email_domain"] for line in signed} == set(domain.victims["email_domain"])
    assert all(line["auth_failed"] and "account" not in line for line in signed)
    forged = [orjson.loads(line) for line in joined(drill, events[events["attack"] == 3], "requests").splitlines()]
    claimed = {line["x_forwarded_for"].split(", ")[0] for line in forged}
    assert {address_target(address) for address in claimed} == set(spoofed.victims["ip"])
    assert {line["x_forwarded_for"].split(", ")[1] for line in forged} == {line["client_ip"] for line in forged}
    assert not claimed & {line["client_ip"] for line in forged}


def test_labels_say_who_did_what_and_when() -> None:
    drill = drill_of("scan", "registrations_obvious", "distillation")
    truth, parts = Truth(drill), []
    for block in drill.blocks():
        truth.note(block)
        parts.append(block)
    events = concatenated(parts)
    records = list(truth.records())
    attacks = {record["label"]: record for record in records if record["kind"] == "attack"}
    assert [attacks[label]["name"] for label in (1, 2, 3)] == ["scan", "registrations_obvious", "distillation"]
    assert attacks[3]["cut"]
    sources = [record for record in records if record["kind"] == "source"]
    for label, attack in attacks.items():
        mine = events[events["attack"] == label]
        assert attack["events"]["access-log"] == len(mine) == sum(s["events"] for s in sources if s["attack"] == label)
        assert (attack["first_ms"], attack["last_ms"]) == (mine["time_ms"].min(), mine["time_ms"].max())
        assert attack["sources"] == len({s["ip"] for s in sources if s["attack"] == label})
        for stream, count in attack["events"].items():
            assert (labels_of(events, stream) == label).sum() == count
    assert all({"api_key", "account", "ip", "net"} <= source.keys() for source in sources if source["attack"] == 3)
    accounts = {record["account"] for record in records if record["kind"] == "account"}
    registered = events[(events["attack"] == 2) & (events["shape"] == SHAPE_OF["register"])]
    assert accounts == {new_account(number) for number in registered["number"].tolist()}
    assert records[0]["events"]["access-log"] == len(events)
    assert records[0]["honest"]["access-log"] == int((events["attack"] == 0).sum())


def test_the_table_in_the_docs_is_the_table_of_the_code() -> None:
    page = (DOCS / "drills.md").read_text(encoding="utf-8")
    assert page == reference.written(page), "run `make schemas`"
