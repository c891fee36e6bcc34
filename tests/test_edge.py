"""The in-process edge keeps the rules of every reader of mitigations."""

from __future__ import annotations

from edge.in_process import InProcessEdge, InProcessPoint
from edge.reader import Reader
from schemas.mitigation import Mitigation
from tests.mitigations import CORE, on_topic, record

NOW = 1_000_000


def edge_with(*records: Mitigation) -> InProcessEdge:
    edge = InProcessEdge()
    for one in records:
        edge.apply(one)
    return edge


def test_strongest_until_it_expires() -> None:
    edge = edge_with(record(), record(action="block", detector="other", expires_at=1010))
    assert edge.decide("203.0.113.7", NOW) == "block"
    assert edge.decide("::ffff:203.0.113.7", NOW) == "block"
    assert edge.decide("203.0.113.7", 1_010_000) == "throttle"
    assert edge.decide("203.0.113.7", 1_100_000) is None
    assert edge.decide("203.0.113.8", NOW) is None


def test_networks_and_sixty_fours() -> None:
    edge = edge_with(record("203.0.113.0/24"), record("2001:db8:1:2::/64"))
    assert edge.decide("203.0.113.99", NOW) == "throttle"
    assert edge.decide("2001:db8:1:2::99", NOW) == "throttle"
    assert edge.decide("2001:db8:1:3::99", NOW) is None


def test_older_records_and_trials_change_nothing() -> None:
    edge = edge_with(record(stage="final", action="block"), record(action="throttle"), record(tick=980, stage="final"))
    assert edge.decide("203.0.113.7", NOW) == "block"
    assert edge_with(record(dry_run=True), record(drill=True)).decide("203.0.113.7", NOW) is None
    assert edge_with(record(), record(stage="final", state="lifted")).decide("203.0.113.7", NOW) is None


def test_never_a_harsher_action_and_never_the_core() -> None:
    edge = edge_with(record(action="disable_key"), record("10.0.0.7"), record(action="notify"))
    assert edge.decide("203.0.113.7", NOW) is None
    assert edge.decide("10.0.0.7", NOW) is None
    assert edge.unsupported == 1


def test_an_operators_allow_of_an_address_holds_inside_a_blocked_network() -> None:
    edge = edge_with(record("203.0.113.0/24", action="block"), record("203.0.113.7", action="allow", detector="operator"))
    assert edge.decide("203.0.113.7", NOW) is None
    assert edge.decide("203.0.113.8", NOW) == "block"


def test_a_point_answers_what_the_reader_of_the_topic_has_told_it() -> None:
    point = InProcessPoint(CORE)
    reader = Reader(CORE, point.supports)
    reader.begin({})

    def hear(*records: Mitigation, now_ms: int = NOW) -> None:
        for one in records:
            reader.take(*on_topic(one))
        point.change(reader.changes(now_ms), now_ms)

    hear(record(), record("203.0.113.0/24", action="challenge"), record("198.51.100.9", action="disable_key"))
    assert point.decide("203.0.113.7", NOW) == "throttle"
    assert point.decide("203.0.113.99", NOW) == "challenge"
    assert point.decide("198.51.100.9", NOW) is None
    assert reader.counts["unsupported"] == 1
    hear(record(stage="final", state="lifted"))
    assert point.decide("203.0.113.7", NOW) == "challenge"
    assert point.decide("203.0.113.7", 1_100_000) is None, "on time, though the reader has not been asked again"
    hear(now_ms=1_100_000)
    point.replace(reader.table, 1_100_000)
    assert point.decide("203.0.113.99", NOW) is None


def test_a_point_never_acts_on_the_allowlist_core() -> None:
    point = InProcessPoint(CORE)
    reader = Reader(CORE, point.supports)
    reader.begin({})
    reader.take(*on_topic(record("127.0.0.1", action="block")))
    point.replace({}, NOW)
    point.change(reader.changes(NOW), NOW)
    assert point.decide("127.0.0.1", NOW) is None
