"""Accounts that nobody uses: who is followed, for how long, and on which hosts."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from detectors.kernels.windows import NEVER
from detectors.learning.floods import BASES, COLUMNS, Base, Mark
from detectors.learning.uses import (
    ACCOUNTS_MAX,
    GRACE_S,
    HOUR_STEPS,
    LONG_STEPS,
    NO_USES,
    STEP_S,
    Aged,
    Uses,
    registered,
)
from drills.run import START_S
from engine.cohorts import make_registrations
from engine.embedded import Embedded
from engine.registrants import add_aged
from schemas.columns import I64
from schemas.config import parse_config
from schemas.decode import Decoder
from schemas.errors import ConfigError
from schemas.fields import Text
from tests.engines import as_chunk, config_of, feed, only
from tests.test_registrations import flat
from tests.test_sampling import Observing

BUSY = 9_999
"""An account that asks for something every ten seconds."""


def steps_of(uses: Uses, events: list[tuple[int, int, int]], last: int, first: int = 0) -> dict[int, Aged]:
    """Step -> who grew old in it, where anybody did; with a sample of level 0 in every step, unless ``events`` say another."""
    said = {tick // STEP_S for tick, _, says in events if says >= 0}
    usual = [(STEP_S * step, BUSY, 0) for step in range(first, last) if step not in said]
    rows = sorted([*events, *usual], key=lambda one: one[0])
    found = {}
    for step in range(first, last):
        here = [one for one in rows if one[0] // STEP_S == step]
        rows = rows[len(here) :]
        uses.take(np.array(here, np.int64).reshape(-1, 3))
        aged = uses.aged(step)
        if aged[0] or aged[2]:
            found[step] = aged
    return found


def test_each_account_counts_once_when_an_hour_and_once_when_six_hours_have_passed() -> None:
    begin = 100 * STEP_S
    made = [(begin, who, registered(9)) for who in (1, 2, 3, 4)]
    used = [(begin + GRACE_S - 1, 1, 0), (begin + 60, 2, 0), (begin + 2 * 3600, 3, 0), (begin + 2 * 3600, 2, 0)]
    found = steps_of(Uses(), [*made, *used], 100 + LONG_STEPS + 10)
    assert found == {100 + HOUR_STEPS: (4.0, 3.0, 0.0, 0.0, 0.0, 0.0), 100 + LONG_STEPS: (0.0, 0.0, 4.0, 2.0, 0.0, 0.0)}


def test_only_accounts_that_samples_show_are_followed() -> None:
    begin = HOUR_STEPS * STEP_S
    made = [(begin, 10 + rank, registered(rank)) for rank in range(6)]
    busy = [(STEP_S * step, BUSY, 3) for step in range(4 * HOUR_STEPS)]
    found = steps_of(Uses(), [*made, *busy], 3 * HOUR_STEPS)
    assert found == {2 * HOUR_STEPS: (3.0, 3.0, 0.0, 0.0, 0.0, 0.0)}


def test_an_outage_makes_nobody_look_unused() -> None:
    made = [(STEP_S * (HOUR_STEPS + 300), 1, registered(9))]
    heard = [(STEP_S * step, BUSY, 0) for step in range(HOUR_STEPS + 60)]
    uses, counted = Uses(), 0.0
    for step in range(3 * HOUR_STEPS):
        here = [one for one in [*made, *heard[step : step + 1]] if one[0] // STEP_S == step]
        uses.take(np.array(here, np.int64).reshape(-1, 3))
        counted += uses.aged(step)[0]
    assert counted == 0.0


def test_too_many_accounts_leave_the_lowest_ranks_out_and_no_more_are_kept() -> None:
    chance, uses = np.random.default_rng(3), Uses()
    ranks = np.minimum(chance.geometric(0.5, 4 * ACCOUNTS_MAX) - 1, 31)
    events = np.stack([np.repeat(np.arange(4) * 50, ACCOUNTS_MAX), 1 + np.arange(4 * ACCOUNTS_MAX), registered(ranks)], axis=1)
    uses.take(events)
    [waiting, *_] = uses.save()
    assert len(waiting) <= ACCOUNTS_MAX
    assert sorted(waiting[:, 0].tolist()) == (1 + np.flatnonzero(ranks >= waiting[:, 2].min())).tolist()


def test_wherever_it_is_saved_it_goes_on_the_same() -> None:
    chance, one, other = np.random.default_rng(5), Uses(), Uses()
    for step in range(3 * HOUR_STEPS):
        made = [(STEP_S * step + 1, int(who), registered(int(chance.integers(4)))) for who in chance.integers(1, 400, 2)]
        used = [(STEP_S * step + 2, int(who), int(chance.integers(3))) for who in chance.integers(1, 400, 3)]
        events: I64 = np.array([*made, *used], np.int64)
        one.take(events)
        other.take(events)
        assert one.aged(step) == other.aged(step)
        if step % 97 == 0:
            saved, other = other.save(), Uses()
            other.load(saved)
    for mine, its in zip(one.save(), other.save(), strict=True):
        np.testing.assert_array_equal(mine, its)


def test_who_grew_old_is_added_to_the_slow_models_sums() -> None:
    sums = np.zeros((1, COLUMNS))
    add_aged(sums, (5.0, 2.0, 4.0, 1.0, 3.0, 1.0))
    assert sums[0, [Base.AGED_HOUR, BASES + Mark.UNUSED, Base.AGED_LONG, BASES + Mark.IDLE]].tolist() == [5.0, 2.0, 4.0, 1.0]
    assert Uses().aged(0) == (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert len(NO_USES) == 0


SERVICES = {"example": ["www.example.com", "api.example.com"]}


def test_hosts_of_one_service_become_its_name_and_others_stay() -> None:
    hosts = ["www.example.com", "api.example.com", "ape.example.com", "other.example", None, "example"]
    lines = [
        orjson.dumps({"time": 1_795_392_000_000, "client_ip": "192.0.2.1", "method": "GET", "path": "/", "status": 200}
                     | ({} if host is None else {"host": host})) + b"\n"
        for host in hosts
    ]  # fmt: skip
    for geo in (False, True):
        config = parse_config({"input": {"services": SERVICES} | ({"geo": ["/none"]} if geo else {})}).input
        decoder, data = Decoder(config, key_seed=(1, 2), ahead_ms=0), b"".join(lines)
        decoder.decode_lines(as_chunk(data), len(data), 0, bound_ms=0, events_max=20_000)
        columns = decoder.columns
        found = [columns.text(Text.HOST, row).decode() for row in range(columns.n)]
        assert found == ["example", "example", "ape.example.com", "other.example", "", "example"]


def test_a_host_of_two_services_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"got 'a\.example' in two of them"):
        parse_config({"input": {"services": {"one": ["a.example"], "two": ["a.example"]}}})


def shop(hours: int) -> bytes:
    """People register on one host and use the other; of an account made in the second half nothing is heard again."""
    begin, found = START_S, []
    usual: dict[str, Any] = {"client_ip": "198.51.100.7", "user_agent": "Browser/1", "status": 200}
    for number, at in enumerate(range(0, 3600 * hours, 30)):
        who = f"acct_{number}"
        found.append((at, usual | {"event": "registration", "host": "www.example.com", "method": "POST", "path": "/signup",
                                   "status": 201, "account": who}))  # fmt: skip
        found.append((at, usual | {"host": "api.example.com", "method": "GET", "path": "/v1/models", "account": "acct_busy"}))
        if at < 1800 * hours:
            found.append((at + 90, usual | {"host": "api.example.com", "method": "GET", "path": "/v1/models", "account": who}))
    found.sort(key=lambda one: one[0])
    return b"".join(orjson.dumps({"time": 1000 * (begin + at), **event}) + b"\n" for at, event in found)


def told(services: dict[str, list[str]], piece: int | None, log: bytes | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the model of a sign-up site says of it, and everything it knows."""
    engine = Embedded(config_of({"input": {"services": services}, "detectors": only("registrations")}))
    data = (log or shop(6)).splitlines(keepends=True)
    engine.open("log", 1000 * (START_S + 7 * 3600))
    base = 0
    for first in range(0, len(data), piece or len(data)):
        base = feed(engine, "log", b"".join(data[first : first + (piece or len(data))]), base)
    engine.close("log")
    engine.finish()
    model = engine.models()["registrations"]
    engine.stop()
    [about] = model["about"]["services"]
    return about, model


def test_a_registration_on_one_host_is_linked_to_requests_on_another() -> None:
    about, saved = told(SERVICES, None)
    assert about["service"] == "example"
    aged = about["accounts_aged_hour"]
    assert 120 * 5 - 20 <= aged <= 120 * 5  # up to the last ten minutes that are over
    assert about["unused_hour"] == pytest.approx(1 - 360 / aged, abs=0.01)
    assert told({}, None)[0]["accounts_aged_hour"] == 0
    assert flat(told(SERVICES, 37)[1]) == flat(saved)


@pytest.mark.parametrize("piece", [1, 7, 50])
def test_what_accounts_did_before_anybody_registered_leaves_nothing_behind_wherever_it_is_cut(piece: int) -> None:
    random = np.random.default_rng(8)
    usual: dict[str, Any] = {
        "client_ip": "198.51.100.7",
        "host": "api.example.com",
        "method": "GET",
        "path": "/",
        "status": 200,
    }
    log = []
    for at in range(900):
        who = f"acct_{random.integers(40)}"
        log.append({"time": 1000 * (START_S + at), **usual, "account": who, "status": int(random.choice([200, 401]))})
        if at >= 600 and at % 3 == 0:
            log.append(log[-1] | {"event": "registration", "account": f"acct_{at}", "status": int(random.choice([201, 400]))})
    data = b"".join(orjson.dumps(event) + b"\n" for event in log)
    assert flat(told({}, piece, data)[1]) == flat(told({}, None, data)[1])


def test_who_registered_in_a_second_that_is_closed_comes_too_late() -> None:
    event: dict[str, Any] = {
        "event": "registration", "client_ip": "198.51.100.7", "host": "www.example.com", "method": "POST", "path": "/signup",
        "status": 201,
    }  # fmt: skip
    saved = []
    for times in ((0, 60, 5, 70), (0, 60, 70)):
        model = make_registrations(config_of({"detectors": only("registrations")}), 1)
        assert model is not None
        for at in times:
            model.add(Observing().tally([{"time_ms": 1000 * (START_S + at), **event, "account": f"acct_{at}"}]))
            model.close(START_S + at + 15, NEVER)
        saved.append(flat(model.save()))
    assert saved[0] == saved[1]
