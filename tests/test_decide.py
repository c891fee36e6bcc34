"""The engine as drills ask it: what is decided early hangs on the seconds of a log, not on how it is read."""

from __future__ import annotations

import functools
import itertools
import random

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drills.scoring.decide import Decider, Steps, decided
from schemas.config import Config
from schemas.mitigation import Evidence, Mitigation
from tests.engines import config_of

START_S = 1_795_392_000
ATTACK_S, END_S = 900, 960
CONFIG = Config(profile="web")


def event(second: float, address: str, path: str, status: int = 200) -> bytes:
    said = {"time": round(1000 * (START_S + second)), "client_ip": address, "method": "GET", "path": path, "status": status,
            "host": "www.example.com", "user_agent": "Browser/1"}  # fmt: skip
    return orjson.dumps(said) + b"\n"


@functools.cache
def site() -> tuple[bytes, ...]:
    """A quarter of an hour of a site with a visitor every eighth second, and then a minute of scanning from one network."""
    chance = random.Random(11)
    found = []
    for second in range(0, END_S, 8):
        found.append((second + 0.5, f"198.51.100.{chance.randrange(1, 250)}", f"/{chance.randrange(20)}.html"))
    scan = [(ATTACK_S + n / 25, f"203.0.113.{1 + n % 8}", f"/{n:04d}.php", 404) for n in range(25 * (END_S - ATTACK_S))]
    return tuple(event(*one) for one in sorted([*found, *scan]))


def told(mitigations: list[Mitigation]) -> list[bytes]:
    """All of each but which bytes of the log it rests on: those are what was read together."""
    return sorted(msgspec.json.encode(msgspec.structs.replace(one, evidence=Evidence())) for one in mitigations)


def decided_in(block_lines: int) -> list[Mitigation]:
    lines = site()
    blocks = [b"".join(lines[first : first + block_lines]) for first in range(0, len(lines), block_lines)]
    return decided(config_of({"profile": "web"}), blocks).mitigations


def test_a_scan_of_a_quiet_site_is_told_within_seconds() -> None:
    notes = [one for one in decided_in(len(site())) if one.detector == "signature"]
    first = min(notes, key=lambda one: one.issued_at)
    assert (first.stage, first.action) == ("early", "notify"), "one that was read in one piece, too"
    assert first.issued_at - START_S - ATTACK_S <= 3
    assert first.target.value == '{"net":"203.0.113.0/24","service":"www.example.com"}'
    assert "too little is known to act on it: perhaps" in first.reason
    assert not [one for one in decided_in(len(site())) if one.action != "notify" and not one.target.value.startswith("203.")]


@pytest.mark.parametrize("block_lines", [1, 97])
def test_blocks_change_nothing_early_records_neither(block_lines: int) -> None:
    assert told(decided_in(block_lines)) == told(decided_in(len(site())))


def test_without_early_records_the_final_ones_are_the_same() -> None:
    decider = Decider(config_of({"profile": "web"}), early=False)
    decider.take(b"".join(site()))
    final = decider.finish().mitigations
    assert final
    assert told(final) == told([one for one in decided_in(97) if one.stage == "final"])


@settings(max_examples=60, deadline=None)
@given(
    seconds=st.lists(st.one_of(st.integers(0, 6), st.sampled_from([None, "empty"])), max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=4),
    step_s=st.integers(1, 3),
)
def test_a_piece_begins_where_a_step_does(seconds: list[int | str | None], cuts: list[int], step_s: int) -> None:
    """Against reading line by line. What is no event, and what comes late, begins nothing."""
    lines = [
        b"\n" if second == "empty" else b"no event\n" if not isinstance(second, int) else event(second, "192.0.2.1", "/")
        for second in seconds
    ]
    reader, newest = Steps(CONFIG, step_s), -1
    edges = [0, *sorted(min(cut, len(lines)) for cut in cuts), len(lines)]
    for first, end in itertools.pairwise(edges):
        expected = []
        for index in range(first, end):
            second, start = seconds[index], len(b"".join(lines[first:index]))
            if isinstance(second, int) and (START_S + second) // step_s > newest:
                expected.append(start)
                newest = (START_S + second) // step_s
        assert reader.starts(b"".join(lines[first:end])) == expected
