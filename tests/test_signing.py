"""Signatures of mitigations: what edges that trust certain keys refuse, count and acknowledge, and what they take."""

from __future__ import annotations

import base64
import stat
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from broker.signing import (
    DELAY_MS_MAX,
    Signer,
    Verifier,
    load_private_key,
    save_private_key,
    signer_of,
    verifier_of,
)
from edge.enforce import Enforcer
from edge.metrics import EdgeMetrics
from edge.reader import Reader, Record
from floodwall.cli import app
from schemas.config import Config, Signing, parse_config
from schemas.errors import ConfigError
from schemas.mitigation import OPERATOR, Evidence, Mitigation, decode_mitigation
from streams.published import mitigation_message
from tests.edge_parts import HandClock, Heard
from tests.mitigations import CORE, everything, in_force, on_topic, record
from tests.signing import TOPIC, Keyholder, trusting
from tests.test_edge_enforce import FakePoint, FakeTopic

NOW = 1000


@pytest.fixture
def judge(tmp_path: Path) -> Keyholder:
    return Keyholder("judge", tmp_path)


@pytest.fixture
def operator(tmp_path: Path) -> Keyholder:
    return Keyholder("operator", tmp_path)


def reader_that(trusts: Verifier | None) -> Reader:
    """At the end of an empty topic, at 1000 s."""
    reader = Reader(CORE, everything, verifier=trusts)
    reader.begin({})
    reader.changes(NOW * 1000)
    return reader


def counted(reader: Reader) -> dict[str, int]:
    return {name: count for name, count in reader.counts.items() if count and name != "refusals_dropped"}


def test_what_a_trusted_key_has_signed_is_taken_whole(judge: Keyholder) -> None:
    reader = reader_that(trusting(judge.trusted()))
    said = record(evidence=Evidence(samples=('a "quoted" line, "signature":"x"', "ünïcode")))
    key, value = judge.says(said)
    assert reader.take(key, value) is not None
    assert in_force(reader, NOW) == {"203.0.113.7": "throttle"}
    found = decode_mitigation(value)
    assert (found.key_id, found.sequence) == (judge.signer.key_id, 1_000_000_000)
    assert msgspec.structs.replace(found, key_id="", sequence=0, signature="") == said
    assert counted(reader) == {"taken": 1}


def test_without_keys_everything_is_as_it_was(judge: Keyholder) -> None:
    assert signer_of(Config(), TOPIC, HandClock()).value(record()) == on_topic(record())[1]
    assert verifier_of(Config(), TOPIC) is None
    reader = reader_that(None)
    reader.take(*on_topic(record()))
    reader.take(*judge.says(record("203.0.113.8")))
    assert in_force(reader, NOW) == {"203.0.113.7": "throttle", "203.0.113.8": "throttle"}


def test_messages_of_judges_are_signed_and_keep_the_attributes_of_cloud_events(judge: Keyholder) -> None:
    message = mitigation_message(Config(), judge.signer, record(), "floodwall/judges/0")
    assert reader_that(trusting(judge.trusted())).take(message.key, message.value) is not None
    names = [name for name, _ in message.headers]
    assert names == ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type"]


def test_the_signature_is_the_last_field_and_stays_it() -> None:
    assert [field.name for field in msgspec.structs.fields(Mitigation)][-3:] == ["key_id", "sequence", "signature"]


def test_nobody_elses_word_counts(judge: Keyholder, operator: Keyholder) -> None:
    reader = reader_that(trusting(judge.trusted()))
    reader.take(*on_topic(record(action="block")))
    reader.take(*operator.says(record(action="block")))
    forged = msgspec.structs.replace(decode_mitigation(operator.says(record())[1]), key_id=judge.signer.key_id)
    reader.take(*on_topic(forged))
    assert in_force(reader, NOW) == {}
    assert counted(reader) == {"refused_unsigned": 1, "refused_unknown_key": 1, "refused_forged": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"id": "y"}, {"action": "block"}, {"tick": 991}, {"stage": "final"}, {"state": "lifted"}, {"issued_at": 990},
        {"expires_at": 2000}, {"sequence": 1_000_000_001}, {"reason": "another"}, {"drill": True},
        {"evidence": Evidence(samples=("2001:db8::1",))},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_no_field_can_be_changed(judge: Keyholder, change: dict[str, Any]) -> None:
    reader = reader_that(trusting(judge.trusted()))
    reader.take(*on_topic(msgspec.structs.replace(decode_mitigation(judge.says(record())[1]), **change)))
    assert in_force(reader, NOW) == {}
    assert counted(reader) == {"refused_forged": 1}


def test_a_signed_record_is_of_its_target_its_detector_and_its_topic_only(judge: Keyholder) -> None:
    reader = reader_that(trusting(judge.trusted(), topic="other.mitigations"))
    key, value = judge.says(record())
    reader.take(key, value)
    assert counted(reader) == {"refused_forged": 1}
    reader = reader_that(trusting(judge.trusted()))
    for elsewhere in (b"ip:203.0.113.8:rate", b"ip:203.0.113.7:operator"):
        reader.take(elsewhere, value)
    for elsewhere in (record("203.0.113.8"), record(detector=OPERATOR, action="allow")):
        moved = msgspec.structs.replace(decode_mitigation(value), target=elsewhere.target, detector=elsewhere.detector)
        reader.take(*on_topic(moved))
    assert counted(reader) == {"malformed_wrong_key": 2, "refused_forged": 2}
    assert in_force(reader, NOW) == {}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_flipped_bit_anywhere_is_refused_and_counted(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    judge = _a_judge(tmp_path_factory)
    key, value = judge.says(record())
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    flipped = bytearray(value)
    flipped[bit // 8] ^= 1 << bit % 8
    reader = reader_that(trusting(judge.trusted()))
    assert reader.take(key, bytes(flipped)) is None
    assert sum(counted(reader).values()) == 1
    assert in_force(reader, NOW) == {}


_JUDGES: list[Keyholder] = []


def _a_judge(factory: pytest.TempPathFactory) -> Keyholder:
    if not _JUDGES:
        _JUDGES.append(Keyholder("judge", factory.mktemp("keys")))
    return _JUDGES[0]


def test_a_judges_key_cannot_speak_for_an_operator_nor_an_operators_for_a_detector(
    judge: Keyholder, operator: Keyholder
) -> None:
    reader = reader_that(trusting(judge.trusted("detectors"), operator.trusted("operators")))
    allow = record(detector=OPERATOR, action="allow")
    reader.take(*judge.says(allow))
    reader.take(*operator.says(record()))
    assert counted(reader) == {"refused_out_of_scope": 2}
    reader.take(*judge.says(record()))
    reader.take(*operator.says(allow))
    assert in_force(reader, NOW) == {"203.0.113.7": "allow"}


def test_a_record_that_is_written_again_after_its_lift_changes_nothing(operator: Keyholder) -> None:
    reader = reader_that(trusting(operator.trusted()))
    block = operator.says(record(detector=OPERATOR, action="block", stage="final"))
    lift = operator.says(record(detector=OPERATOR, action="block", stage="final", state="lifted"))
    for one in (block, lift, block):
        reader.take(*one)
    assert in_force(reader, NOW) == {}
    assert counted(reader) == {"taken": 3, "refused_replayed": 1}
    reader.take(*operator.says(record(detector=OPERATOR, action="block", stage="final", tick=995)))
    reader.take(*lift)
    assert in_force(reader, NOW) == {"203.0.113.7": "block"}
    assert reader.counts["refused_replayed"] == 2


def test_a_judge_that_repeats_itself_after_a_crash_is_no_replay(judge: Keyholder) -> None:
    reader = reader_that(trusting(judge.trusted()))
    early, final = record(), record(stage="final", action="block")
    for one in (early, final, early, final):
        reader.take(*judge.says(one))
    assert in_force(reader, NOW) == {"203.0.113.7": "block"}
    assert counted(reader) == {"taken": 4, "older": 1}


def test_a_judge_that_takes_over_may_have_a_clock_that_is_behind(judge: Keyholder) -> None:
    reader = reader_that(trusting(judge.trusted()))
    final = record(stage="final")
    reader.take(*judge.says(final))
    other = Signer(TOPIC, judge.private, HandClock(judge.clock.ms - 5000))
    reader.take(on_topic(final)[0], other.value(final))
    assert counted(reader) == {"taken": 2, "older": 1}


def test_compaction_cannot_be_used_to_bring_a_lifted_record_back(judge: Keyholder) -> None:
    """All that a new edge finds is the old block, written again: the brokers' time gives it away."""
    key, value = judge.says(record(action="block", expires_at=5000))
    at_once = reader_that(trusting(judge.trusted()))
    at_once.take(key, value, NOW * 1000 + DELAY_MS_MAX)
    assert in_force(at_once, NOW) == {"203.0.113.7": "block"}
    later = reader_that(trusting(judge.trusted()))
    later.take(key, value, NOW * 1000 + DELAY_MS_MAX + 1)
    assert in_force(later, NOW) == {}
    assert counted(later) == {"refused_replayed": 1}


def test_sequences_rise_though_the_clock_does_not(judge: Keyholder) -> None:
    first, second = (decode_mitigation(judge.says(record())[1]).sequence for _ in range(2))
    judge.clock.ms -= 5000
    third = decode_mitigation(judge.says(record())[1]).sequence
    assert first < second < third


def test_keys_are_exchanged_by_overlap(judge: Keyholder, tmp_path: Path) -> None:
    newer = Keyholder("newer", tmp_path)
    both = reader_that(trusting(judge.trusted(), newer.trusted()))
    both.take(*judge.says(record()))
    both.take(*newer.says(record("203.0.113.8")))
    newer.clock.ms += 1000
    both.take(*newer.says(record(stage="final")))  # of a target that the older key spoke about
    assert counted(both) == {"taken": 3}
    only_newer = reader_that(trusting(newer.trusted()))
    only_newer.take(*judge.says(record()))
    assert counted(only_newer) == {"refused_unknown_key": 1}


def test_refusals_are_acknowledged_and_told_and_metrics_count_them(judge: Keyholder, operator: Keyholder) -> None:
    told: list[str] = []
    topic, clock, heard = FakeTopic(0), HandClock(), Heard()
    reader = Reader(CORE, everything, verifier=trusting(judge.trusted()))
    enforcer = Enforcer("here", topic, reader, FakePoint(), heard, clock, lambda event, fields: told.append(event))
    topic.open(reader)
    enforcer.step()
    for key, value in (
        operator.says(record(id="a")), on_topic(record(id="b")), judge.says(record(id="c", expires_at=999)),
        judge.says(record("203.0.113.9", id="d")), on_topic(record(id="e", dry_run=True)),
    ):  # fmt: skip
        reader.take(key, value)
    clock.ms += 10_000
    enforcer.step()
    whys = {one.id: (one.outcome, one.why) for one in heard.said}
    assert whys == {
        "a": ("error", "it was signed with a key that this edge does not trust"),
        "b": ("error", "it has no signature, and this edge wants one"),
        "c": ("error", "it had ended before it came"),
        "d": ("applied", ""),
    }
    assert told == ["ready", "records_refused"]

    class Topic:
        stale_since_ms = None

    metrics = EdgeMetrics(reader, Topic(), None, clock)
    [records, in_force_now, stale] = list(metrics.collect())
    assert {next(iter(sample.labels.values())): sample.value for sample in records.samples} == {
        "taken": 2, "expired": 1, "refused_unknown_key": 1, "refused_unsigned": 2, "refusals_dropped": 0,
    }  # fmt: skip
    assert (in_force_now.samples[0].value, stale.samples[0].value) == (1, 0)


def test_a_key_file_is_its_owners_and_never_written_over(judge: Keyholder, tmp_path: Path) -> None:
    assert stat.S_IMODE(judge.file.stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="never written over"):
        save_private_key(judge.file, b"another")
    judge.file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod o= "):
        load_private_key(judge.file)
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    nonsense.chmod(0o600)
    with pytest.raises(ConfigError, match="expected a private key as PEM"):
        load_private_key(nonsense)
    with pytest.raises(ConfigError, match="floodwall keys make"):
        load_private_key(tmp_path / "none.pem")


def test_what_keys_make_prints_is_what_an_edge_is_configured_with(tmp_path: Path) -> None:
    run, file = CliRunner(), str(tmp_path / "judges.pem")
    made = run.invoke(app, ["keys", "make", file])
    assert made.exit_code == 0, made.output
    config = parse_config(tomllib.loads(made.stdout))
    private = parse_config({"signing": {"private_key_file": file}})
    verifier = verifier_of(config, TOPIC)
    assert verifier is not None
    value = signer_of(private, TOPIC, HandClock()).value(record())
    assert reader_that(verifier).take(on_topic(record())[0], value) is not None
    shown = orjson.loads(run.invoke(app, ["keys", "show", file, "--json"]).stdout)
    assert shown == {"key_id": decode_mitigation(value).key_id, "key": config.signing.public_keys[0].key}


def test_whoever_edges_would_not_believe_is_told_before_anything_is_said(judge: Keyholder, operator: Keyholder) -> None:
    trusted = {"public_keys": [{"key": judge.public, "owner": "judges"}]}
    assert signer_of(parse_config({"signing": {**trusted, "private_key_file": str(judge.file)}}), TOPIC, HandClock()).key_id
    with pytest.raises(ConfigError, match=r"private_key_file` beside public keys, got none"):
        signer_of(parse_config({"signing": trusted}), TOPIC, HandClock())
    with pytest.raises(ConfigError, match=r"among `\$\.signing\.public_keys`, it is not there"):
        signer_of(parse_config({"signing": {**trusted, "private_key_file": str(operator.file)}}), TOPIC, HandClock())


def test_keys_in_the_configuration_are_checked(judge: Keyholder) -> None:
    with pytest.raises(ConfigError, match=r"signing\.public_keys\[0\]\.key"):
        parse_config({"signing": {"public_keys": [{"key": "short", "owner": "x"}]}})
    loose = judge.public[:-2] + ("B=" if judge.public[-2] != "B" else "C=")
    for key in (loose, base64.b64encode(b"x" * 31).decode()):
        with pytest.raises(ConfigError, match=r"32 bytes in base64 at `\$\.signing\.public_keys\[0\]\.key`"):
            Verifier(TOPIC, Signing(public_keys=(msgspec.structs.replace(judge.trusted(), key=key),)))
    with pytest.raises(ConfigError, match=r"another key at `\$\.signing\.public_keys\[1\]\.key`"):
        trusting(judge.trusted(), judge.trusted())


def test_a_signer_without_a_key_marks_nothing() -> None:
    found = decode_mitigation(Signer(TOPIC, None, HandClock()).value(record()))
    assert (found.key_id, found.sequence, found.signature) == ("", 0, "")


def test_a_record_keeps_what_is_compared() -> None:
    assert {"key_id", "sequence"} <= {field.name for field in msgspec.structs.fields(Record)}
