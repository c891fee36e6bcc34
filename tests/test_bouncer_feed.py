"""What bouncers are told: one test for each thing that a running bouncer was seen to misread."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.bouncer_keys import TYPES, BouncerKey
from edge.decisions import SECONDS_MAX, Place, decision, duration_text, pieces
from edge.offers import KEEP_GONE_MS, Asks, Cursor, Offers
from edge.reader import Record, Standing
from edge.subject import Subject, parse_prefix
from schemas.mitigation import Evidence, Target
from tests.bouncers import FIELDS, FIREWALL, PLUGIN, Client, Stage
from tests.mitigations import record


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def block(value: str = "203.0.113.7", **changes: object) -> object:
    return record(value, **{"stage": "final", "action": "block", "id": value, **changes})


class Told:
    """A bouncer's polls, without HTTP between."""

    def __init__(
        self, stage: Stage, name: str = "web-1", *, agent: str = FIREWALL, scopes: str = "ip,range", address: str = "192.0.2.1"
    ) -> None:
        self._stage = stage
        self._address = address
        self._key = next(key for key in stage.edge.keyring.keys if key.name == name)
        self._asks = Asks(self._key, frozenset(scopes.split(",")), agent == FIREWALL)

    def poll(self, *, startup: bool = False, arrives: bool = True) -> tuple[dict[str, str], list[str]]:
        """What is new, by value its type and duration; and what is gone."""
        now_ms = self._stage.clock.now_ms()
        told = self._stage.edge.feed.tell(self._asks, self._address, is_startup=startup, now_ms=now_ms)
        if arrives:
            self._stage.edge.feed.arrived(told)
        new = {place.value: f"{offer.kind} {duration_text(offer.until_ms - now_ms)}" for place, offer in told.answer.new}
        assert len(new) == len(told.answer.new)
        return new, [place.value for place, _ in told.answer.deleted]


def test_a_range_is_every_address_of_it_to_who_would_take_it_for_the_first(stage: Stage) -> None:
    stage.add("plugin", scopes=("range",))
    stage.say(block("198.51.100.0/24"))
    new, _ = Told(stage).poll(startup=True)
    assert new == {f"198.51.100.{last}": "ban 1m40s" for last in range(256)}
    assert Told(stage, "plugin").poll(startup=True)[0] == {"198.51.100.0/24": "ban 1m40s"}
    stage.step()
    assert stage.heard.take() == [("198.51.100.0/24", "applied")]


def test_of_an_ipv6_prefix_the_addresses_seen_are_sent_at_most_256_and_it_is_partial(stage: Stage) -> None:
    samples = ("2001:db8::7", "2001:0db8::0007", "2001:db8:0:1::7", "203.0.113.7", "GET /", "2001:db8::/64")
    many = tuple(f"2001:db8:7::{number:x}" for number in range(1, 400))
    stage.say(
        block("2001:db8::/64", evidence=Evidence(samples=samples)),
        block("2001:db8:7::/48", evidence=Evidence(samples=many)),
        block("2001:db8:9::/64"),
    )
    new, _ = Told(stage).poll(startup=True)
    assert new.keys() == {"2001:db8::7", *many[:256]}
    stage.step()
    assert stage.heard.take() == [
        ("2001:db8:7::/48", "partial"), ("2001:db8:9::/64", "unsupported"), ("2001:db8::/64", "partial"),
    ]  # fmt: skip
    stage.say(block("2001:db8::/64", state="lifted", tick=991))
    assert Told(stage).poll() == ({}, ["2001:db8::7"])


def test_who_matches_ranges_is_told_an_ipv6_prefix_whole(stage: Stage) -> None:
    stage.add("plugin", scopes=("range",))
    stage.say(block("2001:db8:9::/64"))
    assert Told(stage, "plugin").poll(startup=True)[0] == {"2001:db8:9::/64": "ban 1m40s"}
    stage.step()
    assert stage.heard.take() == [("2001:db8:9::/64", "partial")]  # the other bouncer has nothing of it


@pytest.mark.parametrize(
    ("kind", "value"),
    [("country", "Deutschland"), ("country", "de"), ("asn", "AS64500"), ("asn", "-1"), ("ip", "203.0.113.0/20")],
)
def test_a_value_that_would_lose_a_whole_batch_is_never_sent(stage: Stage, kind: str, value: str) -> None:
    stage.add("all", TYPES, ("range", "country", "as"))
    if kind == "ip":
        stage.say(record("203.0.112.0/20", kind="net", action="block", id="x"))
    else:
        stage.say(record(value, kind=kind, action="block", id="x"))
    assert Told(stage, "all", scopes="ip,range,country,as").poll(startup=True) == ({}, [])
    assert stage.heard.take() == [("x", "unsupported")]


def test_every_spelling_of_an_address_is_sent_in_one(stage: Stage) -> None:
    stage.say(block("::ffff:203.0.113.7"), block("2001:0DB8:0:0::0001"))
    assert Told(stage).poll(startup=True)[0].keys() == {"203.0.113.7", "2001:db8::1"}


def test_a_longer_ban_is_deleted_and_added_for_who_ignores_it_and_only_added_for_who_adds_before_deleting(stage: Stage) -> None:
    stage.say(block())
    firewall, plugin = Told(stage), Told(stage, agent=PLUGIN)
    firewall.poll(startup=True)
    stage.say(block(tick=995, expires_at=1300))
    assert firewall.poll() == ({"203.0.113.7": "ban 5m0s"}, ["203.0.113.7"])
    stage.edge.feed._cursors.clear()
    stage.begin()
    stage.say(block())
    plugin = Told(stage, agent=PLUGIN)
    plugin.poll(startup=True)
    stage.say(block(tick=995, expires_at=1300))
    assert plugin.poll() == ({"203.0.113.7": "ban 5m0s"}, [])


def test_what_a_kernels_timer_is_about_to_remove_is_not_deleted_too(stage: Stage) -> None:
    stage.say(block(expires_at=1010), block("203.0.113.8", expires_at=1010), block("203.0.113.9", expires_at=1010))
    firewall = Told(stage)
    firewall.poll(startup=True)
    stage.step(seconds=7)
    stage.say(block(tick=995, expires_at=1300), block("203.0.113.8", tick=995, state="lifted", expires_at=1010))
    assert firewall.poll() == ({}, [])
    stage.step(seconds=4.5)
    assert firewall.poll()[0] == {"203.0.113.7": "ban 4m48s"}
    stage.step(seconds=10)
    assert firewall.poll()[1] == []
    stage.step(seconds=20)
    # A packet filter without timers has to be told at last.
    assert sorted(firewall.poll()[1]) == ["203.0.113.8", "203.0.113.9"]
    assert sorted(firewall.poll()[1]) == ["203.0.113.8", "203.0.113.9"]
    assert firewall.poll() == ({}, [])


@pytest.mark.parametrize(
    ("left_ms", "text"),
    [
        (12_614_000, "3h30m14s"), (3_600_000, "1h0m0s"), (60_000, "1m0s"), (59_999, "59s"), (1000, "1s"), (999, None),
        (0, None), (-5000, None), (10**12, "168h0m0s"),
    ],
)  # fmt: skip
def test_durations_are_whole_seconds_in_hours_minutes_and_seconds(left_ms: int, text: str | None) -> None:
    assert duration_text(left_ms) == text


@given(st.integers(-(10**13), 10**13))
def test_no_duration_is_less_than_a_second_or_longer_than_what_is_left(left_ms: int) -> None:
    text = duration_text(left_ms)
    if text is None:
        assert left_ms < 1000
        return
    hours, minutes, seconds = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(\d+)s", text).groups(default="0")  # type: ignore[union-attr]
    total = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    assert 1 <= total == min(left_ms // 1000, SECONDS_MAX)


def test_what_ends_within_a_second_is_not_sent(stage: Stage) -> None:
    stage.say(block(expires_at=1001), block("203.0.113.8"))
    with stage.served() as port:
        stage.step(seconds=0.5)
        assert Client(port, stage.secrets["web-1"]).startup() == ({"203.0.113.8": "1m39s"}, [])


def test_all_fields_are_always_there_and_the_origin_never_changes(stage: Stage) -> None:
    stage.say(block(detector="rate"), block("203.0.113.8", detector="Ratio <script>"), block("203.0.113.9", detector="x" * 100))
    with stage.served() as port:
        client = Client(port, stage.secrets["web-1"])
        client.startup()
        assert {one["origin"] for one in client.last["new"]} == {"floodwall"}
        scenarios = {one["value"][-1]: one["scenario"] for one in client.last["new"]}
        assert scenarios == {"7": "floodwall/rate", "8": "floodwall/other", "9": "floodwall/other"}
        ids = [one["id"] for one in client.last["new"]]
        assert len(set(ids)) == 3
        assert all(0 < one < 2**53 for one in ids)
        assert {one["scope"] for one in client.last["new"]} == {"Ip"}
        stage.say(block(tick=995, state="lifted"))
        client.poll()
        assert [one["duration"] for one in client.last["deleted"]] == ["1s"]


def test_a_decision_without_a_record_has_all_fields_too() -> None:
    assert decision(Place("Ip", "203.0.113.7"), "ban", "1s", None).keys() == FIELDS


def test_after_an_answer_that_failed_the_next_has_the_same_and_what_came_since(stage: Stage) -> None:
    bouncer = Told(stage)
    bouncer.poll(startup=True)
    stage.say(block())
    assert bouncer.poll(arrives=False) == ({"203.0.113.7": "ban 1m40s"}, [])
    stage.say(block("203.0.113.8"))
    assert bouncer.poll()[0].keys() == {"203.0.113.7", "203.0.113.8"}


def test_each_change_is_told_once_more_after_an_answer_that_arrived(stage: Stage) -> None:
    bouncer = Told(stage)
    bouncer.poll(startup=True)
    stage.say(block())
    assert [list(bouncer.poll()[0]) for _ in range(3)] == [["203.0.113.7"], ["203.0.113.7"], []]
    stage.say(block(tick=995, state="lifted"))
    assert [bouncer.poll()[1] for _ in range(3)] == [["203.0.113.7"], ["203.0.113.7"], []]


def test_a_startup_that_failed_is_not_a_startup(stage: Stage) -> None:
    stage.say(block())
    bouncer = Told(stage)
    bouncer.poll(startup=True, arrives=False)
    assert bouncer.poll()[0] == {"203.0.113.7": "ban 1m40s"}


def test_each_bouncer_has_its_own_place(stage: Stage) -> None:
    stage.add("web-2")
    first, second = Told(stage), Told(stage, "web-2")
    first.poll(startup=True)
    stage.say(block())
    first.poll()
    first.poll()
    assert second.poll()[0] == {"203.0.113.7": "ban 1m40s"}
    assert first.poll() == ({}, [])


def test_dry_runs_drills_and_held_records_are_never_served_nor_the_allowlist_core(stage: Stage) -> None:
    stage.say(
        block("203.0.113.1", dry_run=True), block("203.0.113.2", drill=True), block("203.0.113.3", state="held"),
        block("203.0.113.4", state="expired"), block("10.0.0.1"), block("203.0.113.5", action="notify"),
    )  # fmt: skip
    assert Told(stage).poll(startup=True)[0] == {}
    assert stage.heard.take() == [("10.0.0.1", "error")]


def test_an_action_becomes_a_type_only_for_bouncers_that_can_and_is_unsupported_without_any(stage: Stage) -> None:
    stage.say(block("203.0.113.1", action="throttle"), block("203.0.113.2", action="challenge"), block("203.0.113.3"))
    assert stage.heard.take() == [("203.0.113.1", "unsupported"), ("203.0.113.2", "unsupported")]
    stage.add("gateway", TYPES)
    stage.begin()
    stage.say(block("203.0.113.1", action="throttle"), block("203.0.113.2", action="challenge"), block("203.0.113.3"))
    assert Told(stage).poll(startup=True)[0].keys() == {"203.0.113.3"}
    assert Told(stage, "gateway").poll(startup=True)[0] == {
        "203.0.113.1": "throttle 1m40s", "203.0.113.2": "captcha 1m40s", "203.0.113.3": "ban 1m40s",
    }  # fmt: skip


def test_a_weaker_action_that_can_be_carried_out_stands_in_for_none(stage: Stage) -> None:
    stage.add("captcha", ("captcha",))
    stage.say(block(action="challenge", detector="a"), block(action="throttle", detector="b"))
    assert Told(stage, "captcha").poll(startup=True)[0] == {"203.0.113.7": "captcha 1m40s"}


def test_a_ban_that_became_a_captcha_is_deleted_at_who_knows_bans_only(stage: Stage) -> None:
    stage.add("both", ("ban", "captcha"))
    stage.say(block())
    only, both = Told(stage), Told(stage, "both", agent=PLUGIN)
    only.poll(startup=True)
    both.poll(startup=True)
    stage.say(block(tick=995, action="challenge"))
    assert only.poll() == ({}, ["203.0.113.7"])
    assert both.poll() == ({"203.0.113.7": "captcha 1m40s"}, [])


def test_countries_and_networks_of_operators_go_to_who_can_and_asks(stage: Stage) -> None:
    stage.say(record("DE", kind="country", action="block", id="c"))
    assert stage.heard.take() == [("c", "unsupported")]
    stage.add("edge", scopes=("country", "as"))
    stage.begin()
    stage.say(record("DE", kind="country", action="block", id="c"), record("64500", kind="asn", action="block", id="n"))
    stage.say(record("abc", kind="api_key", action="block", id="k"))
    assert Told(stage, "edge").poll(startup=True)[0] == {}
    assert Told(stage, "edge", scopes="ip,country,as").poll(startup=True)[0].keys() == {"DE", "64500"}
    assert Told(stage, scopes="ip,country,as").poll(startup=True)[0] == {}
    stage.step()
    assert stage.heard.take() == [("c", "applied"), ("k", "unsupported"), ("n", "applied")]


def test_an_operators_allow_is_let_through_also_inside_a_blocked_prefix_and_comes_back_when_it_ends(stage: Stage) -> None:
    stage.add("plugin", scopes=("range",))
    single, ranges = Told(stage), Told(stage, "plugin", agent=PLUGIN)
    stage.say(block("198.51.100.0/24", expires_at=3000))
    single.poll(startup=True)
    ranges.poll(startup=True)
    stage.say(record("198.51.100.5", detector="operator", action="allow", id="allow", expires_at=1200))
    assert single.poll() == ({}, ["198.51.100.5"])
    new, gone = ranges.poll()
    assert gone == ["198.51.100.0/24"]
    assert len(new) == 8
    assert "198.51.100.4/32" in new
    assert ("allow", "applied") in stage.heard.take()
    stage.step(seconds=250)
    assert single.poll()[0].keys() == {"198.51.100.5"}
    new, gone = ranges.poll()
    assert (new.keys(), len(gone)) == ({"198.51.100.0/24"}, 8)


def test_an_address_has_the_strongest_of_what_it_lies_in(stage: Stage) -> None:
    bouncer = Told(stage)
    stage.say(block("198.51.100.0/24", expires_at=1200), block("198.51.100.5", expires_at=1400), block("198.51.100.6"))
    new, _ = bouncer.poll(startup=True)
    assert (new["198.51.100.5"], new["198.51.100.6"], new["198.51.100.7"]) == ("ban 6m40s", "ban 3m20s", "ban 3m20s")
    stage.say(block("198.51.100.0/24", tick=995, state="lifted", expires_at=1200))
    new, gone = bouncer.poll()
    assert new == {"198.51.100.6": "ban 1m40s"}
    assert len(gone) == 255
    assert "198.51.100.5" not in gone


def test_after_a_restart_the_whole_is_told_and_what_was_lifted_meanwhile_is_deleted(stage: Stage) -> None:
    stage.say(block(), block("203.0.113.8"), block("203.0.113.9"))
    Told(stage).poll(startup=True)
    stage.begin()
    stage.say(block(tick=995, state="lifted"), block("203.0.113.8"), block("203.0.113.9", tick=995, dry_run=True))
    new, gone = Told(stage).poll()
    assert (new.keys(), sorted(gone)) == ({"203.0.113.8"}, ["203.0.113.7", "203.0.113.9"])


def test_what_has_expired_is_deleted_at_bouncers_without_timers_until_a_day_later(stage: Stage) -> None:
    stage.say(block())
    plugin = Told(stage, agent=PLUGIN)
    plugin.poll(startup=True)
    stage.step(seconds=101)
    assert plugin.poll() == ({}, ["203.0.113.7"])
    assert Told(stage, agent=PLUGIN).poll(startup=True) == ({}, ["203.0.113.7"])
    stage.step(seconds=KEEP_GONE_MS / 1000)
    assert plugin.poll(startup=True) == ({}, [])


def test_acknowledged_is_what_arrived_and_once(stage: Stage) -> None:
    stage.say(block())
    bouncer = Told(stage)
    stage.step()
    assert stage.heard.take() == []
    bouncer.poll(startup=True, arrives=False)
    stage.step()
    assert stage.heard.take() == []
    bouncer.poll(startup=True)
    bouncer.poll(startup=True)
    stage.say(block(tick=995, expires_at=1300))
    bouncer.poll()
    stage.step()
    assert stage.heard.take() == [("203.0.113.7", "applied")]


def test_what_a_stronger_decision_covers_is_acknowledged_with_it(stage: Stage) -> None:
    stage.say(block("198.51.100.0/24", expires_at=1200), block("198.51.100.5"))
    Told(stage).poll(startup=True)
    stage.step()
    assert stage.heard.take() == [("198.51.100.0/24", "applied"), ("198.51.100.5", "applied")]


def test_a_place_is_kept_for_each_address_that_a_key_is_used_from(stage: Stage) -> None:
    stage.say(block())
    told = [Told(stage, address=address) for address in ("192.0.2.1", "192.0.2.2")]
    for one in told:
        one.poll(startup=True)
    stage.say(block("203.0.113.8"))
    assert [list(one.poll()[0]) for one in told] == [["203.0.113.8"], ["203.0.113.8"]]


def test_what_does_not_fit_is_an_error_and_comes_in_when_there_is_room(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.feed.PLACES_MAX", 300)
    stage.begin()
    stage.say(block("198.51.100.0/24", expires_at=1050))
    stage.say(block("203.0.113.0/24"))
    assert stage.heard.take() == [("203.0.113.0/24", "error")]
    bouncer = Told(stage)
    assert len(bouncer.poll(startup=True)[0]) == 256
    stage.step(seconds=60)
    stage.say(block("203.0.113.0/24", tick=1060, id="again", expires_at=1500))
    assert len(bouncer.poll()[0]) == 256
    stage.step()
    assert ("again", "applied") in stage.heard.take()


KEY = BouncerKey("k", "0" * 32, "0" * 64, TYPES, ("Ip", "Range"), 0)
PLAIN = Asks(KEY, frozenset({"ip", "range"}), False)
SUBJECT = Subject("ip4", "203.0.113.7", 32)


def standing(until: int) -> Standing:
    target = Target(type="ip", value="203.0.113.7")
    return Standing("block", until * 1000, Record("x", 1, "final", "active", "block", target, "rate", "", 1, until))


places = st.integers(0, 4).map(lambda number: Place("Ip", f"203.0.113.{number}"))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), places, st.sampled_from(TYPES), st.integers(10, 20)),
        st.tuples(st.just("drop"), places),
        st.tuples(st.just("poll"), st.booleans(), st.booleans()),
    ),
    max_size=60,
)


@given(steps, st.integers(2, 6))
def test_whoever_polls_has_what_is_offered_whatever_got_lost(steps: list[tuple[object, ...]], places_max: int) -> None:
    """A bouncer that replaces and deletes by value. Its polls may fail, and one in a row may only seem to have arrived."""
    offers, held, cursor, is_lost = Offers(places_max), {}, None, False
    for step in [*steps, ("poll", True, True)]:
        match step:
            case ("put", Place() as place, str(kind), int(until)):
                offers.put(place, kind, standing(until), SUBJECT)
            case ("drop", Place() as place):
                offers.drop(place, 0)
            case ("poll", heeded, arrived):
                is_known = cursor is not None and offers.knows(cursor)
                answer = offers.since(cursor, PLAIN, 0) if is_known and cursor is not None else offers.all(PLAIN, 0)
                if heeded:
                    for place, _ in answer.deleted:
                        held.pop(place, None)
                    held.update({place: (offer.kind, offer.until_ms) for place, offer in answer.new})
                if arrived and (heeded or (is_known and not is_lost)):
                    cursor = Cursor(cursor.last if is_known and cursor is not None else answer.number, answer.number)
                    is_lost = not heeded
    offered = {place: (offer.kind, offer.until_ms) for place, offer in offers.all(PLAIN, 0).new}
    if places_max > 4:  # nothing that has gone was forgotten
        assert held == offered
    assert offered.items() <= held.items()


@given(st.lists(st.integers(0, 255), max_size=6, unique=True))
def test_the_pieces_of_a_prefix_are_the_prefix_without_its_holes(holes: list[int]) -> None:
    prefix = parse_prefix("198.51.100.0/24")
    found = [parse_prefix(place.value) for place in pieces(prefix, [parse_prefix(f"198.51.100.{last}") for last in holes])]
    covered = [address - prefix.low for one in found for address in range(one.low, one.high + 1)]
    assert sorted(covered) == sorted(set(range(256)) - set(holes))
