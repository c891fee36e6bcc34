"""Keys of bouncers: hashes only, checked words, bounds."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edge.bouncer_keys import KEYS_MAX, Keyring, add_key, load_keys, make_key, revoke_key, save_keys
from schemas.errors import ConfigError, UsageError
from tests.bouncers import Stage


def test_the_file_has_hashes_only_and_is_its_owners(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    text = stage.file.read_text()
    assert stage.secrets["web-1"] not in text
    assert stage.secrets["web-1"].removeprefix("fwb_") not in text
    assert stat.S_IMODE(stage.file.stat().st_mode) == 0o600


def test_two_bouncers_with_one_secret_would_have_two_hashes() -> None:
    draws = iter([b"s" * 32, b"a" * 16, b"s" * 32, b"b" * 16])
    first, second = (make_key(name, ("ban",), (), now=0, draw=lambda size: next(draws)) for name in "ab")
    assert first[0] == second[0]
    assert first[1].hash != second[1].hash


def test_names_types_and_scopes_are_checked(tmp_path: Path) -> None:
    for words in (("", ("ban",), ()), ("a b", ("ban",), ()), ("a", ("block",), ()), ("a", ("ban",), ("session",))):
        with pytest.raises(UsageError, match="expected a "):
            make_key(*words, now=0, draw=os.urandom)  # type: ignore[arg-type]
    kept = make_key("a", ("Captcha", "ban"), ("RANGE",), now=0, draw=os.urandom)[1]
    assert (kept.types, kept.scopes) == (("ban", "captcha"), ("Ip", "Range"))


def test_there_are_as_many_keys_as_are_compared_in_time(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys = [make_key(f"k{number}", ("ban",), (), now=0, draw=os.urandom) for number in range(KEYS_MAX)]
    save_keys(file, (kept for _, kept in keys))
    with pytest.raises(UsageError, match=f"at most {KEYS_MAX} keys"):
        add_key(file, make_key("one-more", ("ban",), (), now=0, draw=os.urandom)[1])
    ring = Keyring(file, lambda event, fields: None)
    assert [ring.find(secret) for secret, _ in keys] == list(load_keys(file))
    with pytest.raises(UsageError, match="expected the name of a key"):
        revoke_key(file, "nobody")
    with pytest.raises(ConfigError, match=r"expected a file of keys at .* got none there"):
        load_keys(tmp_path / "none")
