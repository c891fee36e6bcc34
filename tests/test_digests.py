"""Digests of raw records: as plain Python computes them, whatever they were cut into, and in every tally's evidence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.digesting import Digester, digest_between
from engine.intake import ANY_OFFSET, PIECES_OF_SOURCE_MAX, Intake
from engine.seeds import Seeds
from schemas.tally import NO_DIGEST, Digest, Tally, decode_tally, empty_tally, encode_tally
from tests.engines import as_chunk
from tests.oracles.digests import digest_record

SEEDS = Seeds("for tests only", configured=True)
KEY = [int(word) for word in SEEDS.digest]
records = st.lists(st.binary(max_size=40) | st.binary(min_size=1000, max_size=2100), min_size=1, max_size=12)


def added(values: list[bytes], first: int, total: int = 0) -> int:
    """The sum after some messages."""
    digester = Digester(SEEDS.digest, 0, total)
    ends = np.cumsum([len(value) for value in values])
    starts = ends - [len(value) for value in values]
    offsets = np.arange(first, first + len(values))
    digester.add_records(as_chunk(b"".join(values)), starts, ends, offsets, offsets * 1000)
    return digester.total


@settings(max_examples=60, deadline=None)
@given(records, st.integers(0, 1 << 60))
def test_records_are_digested_as_in_plain_python(values: list[bytes], first: int) -> None:
    first //= 1000
    expected = sum(digest_record(KEY, value, first + k, 1000 * (first + k)) for k, value in enumerate(values))
    assert added(values, first) == expected % (1 << 64)


@settings(max_examples=60, deadline=None)
@given(records, st.integers(0, 12))
def test_sums_do_not_depend_on_cuts(values: list[bytes], cut: int) -> None:
    cut = min(cut, len(values))
    assert added(values[cut:], 7 + cut, added(values[:cut], 7)) == added(values, 7)


@settings(max_examples=60, deadline=None)
@given(records, st.data())
def test_lines_are_digested_as_records_at_their_bytes(values: list[bytes], data: st.DataObject) -> None:
    lines = [value.replace(b"\n", b" ") + b"\n" for value in values]
    if data.draw(st.booleans()):
        lines[-1] = lines[-1][:-1] or b"x"  # a file may end without one
    text, base = b"".join(lines), 500
    expected, at = 0, base
    for line in lines:
        expected += digest_record(KEY, line, at, 0)
        at += len(line)
    digester = Digester(SEEDS.digest, 0)
    digester.add_lines(as_chunk(text), 0, len(text), base)
    assert digester.total == expected % (1 << 64)


@settings(max_examples=60, deadline=None)
@given(records, st.data())
def test_one_other_byte_is_another_digest(values: list[bytes], data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(values) - 1))
    if not values[which]:
        return
    at = data.draw(st.integers(0, len(values[which]) - 1))
    other = bytearray(values[which])
    other[at] ^= data.draw(st.integers(1, 255))
    assert added([*values[:which], bytes(other), *values[which + 1 :]], 0) != added(values, 0)
    assert added(values, 1) != added(values, 0)


def test_without_a_configured_seed_the_key_is_everybodys_and_with_one_it_is_not() -> None:
    drawn = [Seeds(secret, configured=False).digest.tolist() for secret in "ab"]
    given_ = [Seeds(secret, configured=True).digest.tolist() for secret in "ab"]
    assert drawn[0] == drawn[1]
    assert len({tuple(key) for key in (*drawn, *given_)}) == 3


def tally_of(start: int, end: int, digest: Digest, tick: int | None = None) -> Tally:
    tally = empty_tally("log", start, end, 0, 1)
    tally.digest = digest
    if tick is not None:
        tally.tick_min = tally.tick_max = tick
    return tally


def test_a_tally_carries_its_digest_and_one_of_the_schema_before_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = tally_of(3, 9, Digest(3, 5, (1 << 64) - 1))
    assert decode_tally(encode_tally(tally, 0)).digest == tally.digest
    for schema in (4, 5):
        monkeypatch.setattr("schemas.tally.TALLY_SCHEMA", schema)
        assert decode_tally(encode_tally(tally_of(3, 9, NO_DIGEST), 0)).digest == NO_DIGEST


def filled(cuts: list[int]) -> Intake:
    """Of segments of 10 offsets, each of a second of its own; the sum after offset k is 1000 k."""
    intake = Intake(0)
    intake.open("log", ANY_OFFSET)
    chain = 0
    for k in range(40):
        chain += k in cuts
        intake.remember(tally_of(10 * k, 10 * k + 10, Digest(chain, 10_000 * k, 10_000 * k + 10_000), k))
    return intake


def test_evidence_has_pieces_that_make_up_its_range() -> None:
    intake = filled([])
    for first, last in ((0, 40), (3, 4), (5, 37), (0, 3)):
        pieces = intake.digests(first, last)["log"]
        assert 1 <= len(pieces) <= PIECES_OF_SOURCE_MAX
        start = intake.offsets(first, last)["log"][0]
        for end, digest in pieces:
            assert digest == digest_between(1000 * start, 1000 * end)
            start = end
        assert start == intake.offsets(first, last)["log"][1]


def test_where_a_sum_broke_off_there_is_no_digest() -> None:
    intake = filled([20])
    assert intake.digests(10, 30) == {}
    assert intake.digests(20, 30)
    restored = Intake(0)
    restored.load(intake.save())
    assert restored.digests(20, 30) == intake.digests(20, 30)
    saved = intake.save()
    saved["sources"]["log"][4] = [segment[:4] for segment in saved["sources"]["log"][4]]  # as states of before have them
    restored.load(saved)
    assert restored.digests(20, 30) == {}
    assert restored.offsets(20, 30) == intake.offsets(20, 30)
