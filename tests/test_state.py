"""A saved state is used whole or not at all: whatever happened to its bytes, the answer is a `StateError`."""

from __future__ import annotations

import contextlib
import zlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drills.traffic import main_lines
from engine.embedded import Embedded
from engine.snapshot import MAGIC, SCHEMA, pack, unpack
from schemas.errors import StateError
from tests.engines import config_of, feed

CONFIG = config_of({"input": {"proxy_depth": 1}, "policy": {"allowlist_core": []}}, keys_max=4096, rows_max=4096)


@pytest.fixture(scope="module")
def saved() -> bytes:
    traffic = main_lines(seed=5, events=9000, attackers=2)
    engine = Embedded(CONFIG)
    engine.open("log", int(traffic.times_ms[-1]) + 1000)
    feed(engine, "log", traffic.data, 0)
    data = engine.snapshot()
    engine.stop()
    return data


def with_checksum(state: Any) -> bytes:
    body = msgspec.msgpack.encode(state)
    return MAGIC + zlib.crc32(body).to_bytes(4, "little") + body


def raw(saved: bytes) -> dict[str, Any]:
    """The state before its arrays are unpacked."""
    state: dict[str, Any] = msgspec.msgpack.decode(saved[len(MAGIC) + 4 :])
    return state


def refused(data: bytes) -> str:
    with pytest.raises(StateError) as caught:
        Embedded.restore(CONFIG, data)
    message = str(caught.value)
    assert "\n" not in message
    assert "got" in message
    return message


def test_a_whole_state_is_used(saved: bytes) -> None:
    engine = Embedded.restore(CONFIG, saved)
    assert engine.account().events == 9000
    assert engine.positions() == {"log": unpack(saved)["sources"]["log"][0]}


def test_cut_anywhere_it_is_refused(saved: bytes) -> None:
    for length in [*range(200), *range(200, len(saved), 97), len(saved) - 1]:
        refused(saved[:length])


def test_with_any_byte_changed_it_is_refused(saved: bytes) -> None:
    for at in range(len(saved)):
        damaged = bytearray(saved)
        damaged[at] ^= 1 << (at % 8)
        with pytest.raises(StateError):
            unpack(bytes(damaged))


def test_a_state_of_another_version_is_refused(saved: bytes) -> None:
    assert f"expected a saved state of schema {SCHEMA}, got schema {SCHEMA + 1}" in refused(
        with_checksum({**raw(saved), "schema": SCHEMA + 1})
    )
    assert "got schema None" in refused(with_checksum({"sources": {}}))


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\xdc\xff\xff", msgspec.msgpack.encode([1, 2]), msgspec.msgpack.encode("x")])
def test_other_data_with_the_right_checksum_is_refused(body: bytes) -> None:
    refused(MAGIC + zlib.crc32(body).to_bytes(4, "little") + body)


ARRAYS = [("judge", "rows", name) for name in ("a", "b", "dimension", "tick", "values", "name_length", "names")]


def changed(state: Any, path: tuple[str, ...], value: Any) -> Any:
    """A copy with another value at ``path``; without one, without that part."""
    name, *rest = path
    inner = {key: part for key, part in state.items() if key != name or rest or value is not None}
    if rest:
        inner[name] = changed(state[name], tuple(rest), value)
    elif value is not None:
        inner[name] = value
    return inner


@pytest.mark.parametrize("path", ARRAYS)
@pytest.mark.parametrize(
    "array",
    [
        {"dtype": "<i8", "shape": [3], "data": b"not zlib"},
        {"dtype": "|O", "shape": [1], "data": zlib.compress(bytes(8))},
        {"dtype": "nonsense", "shape": [1], "data": zlib.compress(bytes(8))},
        {"dtype": "<i8", "shape": [2], "data": zlib.compress(bytes(8))},
        {"dtype": "<i8", "shape": [-1], "data": zlib.compress(bytes(8))},
        {"dtype": "<f8", "shape": [1], "data": zlib.compress(bytes(8))},
        {"dtype": "|u1", "shape": [8], "data": zlib.compress(bytes(1 << 20))},
        {"dtype": "|u1", "shape": [1], "data": zlib.compress(bytes(1))},
        {"dtype": 7, "shape": None, "data": 3},
        [1, 2, 3],
        "rows",
    ],
    ids=str,
)
def test_arrays_that_are_not_what_they_say_are_refused(saved: bytes, path: tuple[str, ...], array: Any) -> None:
    refused(with_checksum(changed(raw(saved), path, array)))


def test_rows_that_kernels_could_not_bear_are_refused(saved: bytes) -> None:
    state = unpack(saved)
    rows = state["judge"]["rows"]
    for name, value in (("dimension", 200), ("name_length", 255), ("tick", -5), ("values", -1)):
        worse = rows[name].copy()
        worse[0] = value
        refused(pack({**state, "judge": {**state["judge"], "rows": {**rows, name: worse}}}))
    refused(pack({**state, "judge": {**state["judge"], "rows": {**rows, "tick": rows["tick"][:-1]}}}))
    assert rows["tick"].dtype == np.int64


def paths(state: Any, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in state.items():
        found.append((*above, key))
        if isinstance(value, dict) and value.keys() != {"dtype", "shape", "data"}:
            found += paths(value, (*above, key))
    return found


def test_a_state_that_lacks_a_part_is_refused(saved: bytes) -> None:
    state = raw(saved)
    needed = [path for path in paths(state) if path[0] in ("seed", "sources", "judge") and len(path) < 3]
    assert len(needed) > 8
    for path in needed:
        if path[0] != "sources" or len(path) == 1:  # a source more or less is another state, not a damaged one
            refused(with_checksum(changed(state, path, None)))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.text(max_size=5), st.lists(st.integers(0, 99), max_size=3)
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_part_of_another_kind_never_crashes(saved: bytes, data: st.DataObject) -> None:
    state = raw(saved)
    path = data.draw(st.sampled_from(paths(state)))
    value = data.draw(VALUES)
    with contextlib.suppress(StateError):
        Embedded.restore(CONFIG, with_checksum(changed(state, path, value))).stop()


def test_the_wrong_seed_is_named_and_the_secret_is_not(saved: bytes) -> None:
    with pytest.raises(StateError) as caught:
        Embedded.restore(config_of(seed="another secret", keys_max=4096, rows_max=4096), saved)
    assert "expected a state of the seed" in str(caught.value)
    assert "another secret" not in str(caught.value)
    assert "for tests only" not in str(caught.value)
    assert b"for tests only" not in saved
