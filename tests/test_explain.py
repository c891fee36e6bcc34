"""explain: the right events are found again, the story is told right, and nothing secret is on the screen."""

from __future__ import annotations

import gzip
import random
import shlex
import tomllib
from pathlib import Path
from typing import Any, get_args

import msgspec
import orjson
import pytest
from typer.main import get_command

from engine.config_chain import ConfigChain
from engine.embedded import Embedded
from engine.policy import FOR_EVER
from floodwall.cli import app
from floodwall.commands_explain import _standing
from floodwall.explain_screen import screen, sparkline
from replay.advice import Status, advise, advise_feedback
from replay.explain import explain_files
from replay.reread import find_file
from replay.rules_then import Changed, RulesThen, advise_back
from replay.story import Explanation, Records, Verdict, tell
from schemas.acknowledgement import Acknowledgement
from schemas.config import Config, parse_config
from schemas.errors import SourceError
from schemas.mitigation import Evidence, Finding, Mitigation, Target, Window, encode_line
from tests.engines import as_chunk, config_of
from tests.histories import history, offer
from tests.mitigations import record
from tests.oracles.grouping import route_of

T0 = 1_795_392_000
SECRETS = ("sk-live-QUJDREVGR0hJSktM", "hunter2Tr0ub4dor", "alice.surname@example.org", "asurname")


FIELDS: dict[str, tuple[Any, ...]] = {
    "client_ip": ("203.0.113.7", "203.0.113.9", "2001:db8::7"), "asn": (64500, 64501), "country": ("DE", "FR"),
    "status": (200, 401), "method": ("GET",),
    "path": ("/v1/users/12345678", "/v1/users/87654321?x=1", "/pricing", "/" + "a" * 120),
    "user_agent": ("curl/8", "Mozilla/5.0 " + "x" * 100), "account": ("a1", "a2"),
    "api_key_hash": ("sha256:00000000000000aa", "sha256:00000000000000bb"),
    "fingerprint": ("t13d1516h2_8daaf6152771_b186095e22b6",), "email_domain": ("example.com", "example.org"),
}  # fmt: skip


def events() -> list[dict[str, Any]]:
    """Two minutes of a few clients, seeded."""
    chance = random.Random(5)
    found = []
    for second in range(120):
        for _ in range(20):
            event = {name: chance.choice(values) for name, values in FIELDS.items()}
            host = {"host": "www"} if chance.random() < 0.5 else {}
            found.append({"time": T0 + second + chance.random() * 0.9, **event, **host})
    return sorted(found, key=lambda event: float(event["time"]))


EVENTS = events()
LOG = b"".join(orjson.dumps(event) + b"\n" for event in EVENTS)


def is_about(event: dict[str, Any], kind: str, value: str) -> bool:
    """Whether an event is of a target, by the words of the documentation."""
    proven = event["status"] != 401
    if kind == "ip":
        return event["client_ip"] == value or (value == "2001:db8::/64" and event["client_ip"] == "2001:db8::7")
    if kind == "net":
        return event["client_ip"].startswith("203.0.113.")
    if kind == "route":
        return route_of(event["method"], event["path"])[:96] == value
    if kind == "service":
        return event.get("host", "default") == value
    if kind == "api_key":
        return proven and event["api_key_hash"] == value
    if kind in ("account", "email_domain"):
        return proven and event[kind] == value
    return str(event[kind])[:96] == value


def mitigation(kind: str, value: str, log: str, **changes: Any) -> Mitigation:
    return record(
        value, kind=kind, stage="final", tick=T0 + 99, window=Window(start=T0 + 90, end=T0 + 100), issued_at=T0 + 110,
        expires_at=T0 + 410, evidence=Evidence(offsets={log: (len(LOG) // 2, len(LOG))}), **changes,
    )  # fmt: skip


def explained(
    config: Config, folder: Path, mitigations: list[Mitigation], *, now: int = T0 + 120, **options: Any
) -> Explanation:
    out = folder / "out.ndjson"
    out.write_bytes(b"".join(map(encode_line, mitigations)))
    chain = options.get("chain", ConfigChain(config))
    return explain_files(
        chain, mitigations[0].id, out, options.get("findings"), options.get("logs", []), now,
        lambda records, at: _standing(config, records, at),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("ip", "203.0.113.7"), ("ip", "2001:db8::/64"), ("net", "203.0.113.0/24"), ("asn", "64500"), ("country", "DE"),
        ("api_key", "sha256:00000000000000aa"), ("account", "a1"), ("email_domain", "example.com"),
        ("route", "GET /v1/users/{id}"), ("route", "GET /pricing"), ("route", "GET /" + "a" * 91), ("user_agent", "curl/8"),
        ("user_agent", "Mozilla/5.0 " + "x" * 84), ("fingerprint", "t13d1516h2_8daaf6152771_b186095e22b6"),
        ("service", "www"), ("service", "default"),
    ],
)  # fmt: skip
def test_the_events_of_every_kind_of_target_are_found_again(kind: str, value: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(LOG)
    told = explained(config_of(), tmp_path, [mitigation(kind, value, str(log))])
    assert told.traffic is not None
    expected = [sum(int(e["time"]) == T0 + s and is_about(e, kind, value) for e in EVENTS) for s in range(40, 100)]
    assert [count or 0 for count in told.traffic.per_second] == expected
    assert told.traffic.events == sum(expected[-10:]) > 0
    assert told.traffic.all_events == 200
    assert len(told.traffic.samples) == 3
    for sample in told.traffic.samples:
        line = LOG[sample.offset :].split(b"\n", 1)[0]
        assert is_about(orjson.loads(line), kind, value)
    assert screen(told, 100)[0].startswith("IN FORCE: throttle, until ")


def test_a_signature_is_all_of_its_attributes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(LOG)
    value = orjson.dumps({"country": "DE", "net": "203.0.113.0/24", "route": "GET /pricing", "service": "www"}).decode()
    told = explained(config_of(), tmp_path, [mitigation("signature", value, str(log))])
    assert told.traffic is not None
    wanted = [("country", "DE"), ("net", ""), ("route", "GET /pricing"), ("service", "www")]
    assert told.traffic.events == sum(
        T0 + 90 <= e["time"] < T0 + 100 and all(is_about(e, *pair) for pair in wanted) for e in EVENTS
    )


def test_the_log_is_found_where_it_was_where_it_went_and_where_one_says(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_bytes(LOG)
    name = f"{log}#{log.stat().st_ino}"
    log.rename(tmp_path / "access.log.1")
    assert find_file(name, []) == str(tmp_path / "access.log.1")
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(LOG))
    whole = explained(config_of(), tmp_path, [mitigation("ip", "203.0.113.7", name)])
    again = explained(config_of(), tmp_path, [mitigation("ip", "203.0.113.7", "gone.log")], logs=[str(packed)])
    gone = explained(config_of(), tmp_path, [mitigation("ip", "203.0.113.7", "gone.log")])
    assert whole.traffic is not None
    assert again.traffic is not None
    assert whole.traffic.events == again.traffic.events > 0
    assert gone.traffic is not None
    assert gone.traffic.missing == ["gone.log is not here: name the log with --log"]
    with pytest.raises(SourceError, match="expected a log file at nowhere"):
        explained(config_of(), tmp_path, [mitigation("ip", "203.0.113.7", "gone.log")], logs=["nowhere"])
    with pytest.raises(SourceError, match="expected a mitigation 'y' in "):
        explain_files(ConfigChain(config_of()), "y", tmp_path / "out.ndjson", None, [], T0, lambda records, at: None)


def planted_log() -> bytes:
    """A flood of failing logins with secrets in every place that has room for one, among honest requests."""
    chance = random.Random(7)
    lines = []
    for second in range(90):
        stamp = f"23/Nov/2026:00:{second // 60:02}:{second % 60:02} +0000"
        for _ in range(5):
            address = f"198.51.100.{chance.randrange(200)}"
            lines.append(f'{address} - - [{stamp}] "GET /pricing HTTP/1.1" 200 1234 "-" "Mozilla/5.0"')
        for _ in range(12 if second >= 30 else 0):
            key, password, mail, name = SECRETS
            lines.append(
                f'203.0.113.7 - {name} [{stamp}] "POST /v1/login/{mail}?password={password}&k={key} HTTP/1.1" 401 12 '
                f'"https://{name}:{password}@example.com/?t={key}" "tool/1.0 (token {key}; {mail})" "{key}"'
            )
    return "".join(line + "\n" for line in lines).encode()


def test_one_screen_says_it_all_and_nothing_secret(tmp_path: Path) -> None:
    config, log = config_of(), tmp_path / "access.log"
    log.write_bytes(planted_log())
    engine = Embedded(config)
    engine.open(str(log), 0)
    data = log.read_bytes()
    engine.feed(str(log), as_chunk(data), len(data), 0)
    engine.close(str(log))
    engine.finish()
    decided = engine.take()
    engine.stop()
    findings = tmp_path / "findings.ndjson"
    findings.write_bytes(b"".join(map(encode_line, decided.findings)))
    of_rate = [one for one in decided.mitigations if one.detector == "rate" and one.target.type == "ip"]
    others = [one for one in decided.mitigations if one not in of_rate]
    last = of_rate[-1]
    told = explained(config, tmp_path, [last, *of_rate[:-1], *others], now=last.issued_at + 5, findings=findings)
    lines = screen(told, 110)
    text = "\n".join(lines)
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 130
    for expected in (
        "address 203.0.113.7", "failed authentications in 60 seconds", "where 60 are allowed",
        "in force on it: ", "POST /v1/login/…",
        "401 (not logged in)", "▁▁▁███", "Agree     ratio", "access.log @ ", "History", "Next",
    ):  # fmt: skip
        assert expected in text, text
    as_json = msgspec.json.encode(told).decode()
    for secret in SECRETS:
        assert secret not in text
        assert secret not in as_json


def test_whose_change_of_the_configuration_decided_is_told_and_how_to_undo_it(tmp_path: Path) -> None:
    config, log = config_of(), tmp_path / "access.log"
    log.write_bytes(LOG)
    rules = [{"dimension": "ip", "window_s": 10, "limit": 1}]
    chain = history(config, ("detectors.rate", {"rules": rules}, T0 + 50), who="ben", why="harsher tonight")
    before = mitigation("ip", "203.0.113.7", str(log), id="before", config_version=1)
    after = msgspec.structs.replace(before, id="after", config_version=2, tick=before.tick + 1)
    other = msgspec.structs.replace(after, id="other", detector="ratio")

    def told(one: Mitigation) -> tuple[str, list[str]]:
        found = explained(config, tmp_path, [one], chain=chain)
        return "\n".join(screen(found, 110)), [advice.command for advice in found.next]

    text, commands = told(after)
    assert "Rules     of the configuration's version 2: ben changed detectors.rate from " in text
    assert "harsher tonight" in text
    assert 'floodwall config rollback 1 --why "WHY"' in commands
    text, commands = told(before)
    assert "of the configuration's version 1, as in the deployment's file" in text
    assert "since then ben changed detectors.rate" in text
    assert not any("rollback" in command for command in commands)
    assert "Rules" not in told(other)[0]
    offer(chain, "policy", {"ttl_s": 200}, T0 + 60, who="ana", why="shorter")
    text, commands = told(after)
    assert "since then ana changed policy" in text
    assert not any("rollback" in command for command in commands), "it would undo more than what decided"


def story(*mitigations: Mitigation, now: int = 1000, **more: Any) -> Explanation:
    config = config_of()
    records = Records(mitigations=list(mitigations), **more)
    return tell(records, mitigations[0].id, _standing(config, records.mitigations, now), now, live=True)


def at(tick: int, **changes: Any) -> Mitigation:
    fields = {"id": f"at {tick}", "tick": tick, "stage": "final", "issued_at": tick + 11, "expires_at": tick + 311}
    return record(**{**fields, **changes})


def test_what_renewed_escalated_and_lifted_it_is_told_in_order() -> None:
    owner = Evidence(features={"owner": "ana"})
    told = story(
        at(900), at(960), at(1020, action="block"),
        at(1030, id="o", detector="operator", action="allow", reason="a customer", evidence=owner),
        now=1040,
        feedback=[Verdict(id="at 960", verdict="false_positive", who="ana", reason="their office", when=1035)],
        acknowledgements=[
            Acknowledgement(edge="web-1", id="at 900", target=Target(type="ip", value="203.0.113.7"), action="throttle",
                            outcome="applied", applied_at_ms=900_700)
        ],
    )  # fmt: skip
    assert told.status == "allowed"
    assert [step.text for step in told.steps] == [
        "began: throttle for 5 min", "renewed once, because it went on; the last time for 5 min",
        "made harsher: block for 5 min",
        "allow for 5 min by ana: a customer", "said to be false positive by ana: their office",
    ]  # fmt: skip
    assert (told.now_action, told.now_by) == ("allow", "operator")
    text = "\n".join(screen(told, 100))
    assert "done by edge web-1, 0.7 s after it was found" in text
    assert "in force on it: allow, by an operator" in text


@pytest.mark.parametrize(
    ("changes", "now", "status", "says"),
    [
        ({}, 1000, "in_force", "floodwall mitigations lift 203.0.113.7 --owner YOU"),
        ({"stage": "early"}, 1000, "early", "It is confirmed within seconds"),
        ({}, 9000, "over", "It is over"),
        ({"state": "held", "evidence": Evidence(features={"held": "share_max"})}, 1000, "held", "than policy.share_max allows"),
        ({"dry_run": True}, 1000, "dry_run", "Arm it: dry_run = false in [detectors.rate]"),
        ({"drill": True}, 1000, "drill", "A rehearsal"),
        ({"action": "notify"}, 1000, "notice", "Nobody is stopped"),
        ({"state": "lifted"}, 1000, "lifted", "Somebody has lifted it"),
        ({"kind": "api_key", "value": "sha256:ab; rm"}, 1000, "in_force", "lift 'sha256:ab; rm' --type api_key"),
        ({"kind": "country", "value": "\x1b[31mDE"}, 1000, "in_force", "country \\x1b[31mDE"),
    ],
)
def test_every_state_says_what_to_do_next(changes: dict[str, Any], now: int, status: str, says: str) -> None:
    told = story(at(900, **changes), now=now)
    assert told.status == status
    lines = screen(told, 100)
    assert says in " ".join(" ".join(lines).split())
    assert all(line.isprintable() for line in lines)


def test_a_disabled_key_ends_by_an_operator_alone_and_a_trial_is_armed_by_its_command() -> None:
    features = Evidence(features={"provider": "github", "type": "example_key", "source": "commit", "reported": 900})
    leaked = at(990, kind="api_key", detector="leaked", action="disable_key", expires_at=FOR_EVER, limit=0, evidence=features)
    text = "\n".join(screen(story(leaked), 110))
    assert text.startswith("IN FORCE: disable the key, until an operator lifts it\n")
    assert "by github: found in commit, as a key of the kind example_key" in text
    assert "it does not end by itself" in text
    for nonsense in ("9999", "policy] allow", "--ttl", "Compared"):
        assert nonsense not in text
    renewed = story(msgspec.structs.replace(leaked, id="b", tick=1000), leaked)
    assert [step.text for step in renewed.steps] == [
        "began: disable key until lifted", "told again once: it does not end by itself",
    ]  # fmt: skip
    tried = "\n".join(screen(story(at(990, detector="rate-trial", dry_run=True)), 110))
    assert 'floodwall config set detectors.rate --arm --why "WHY"' in tried


@pytest.mark.parametrize(
    ("reason", "limit", "says"),
    [
        ("9 requests, where 3 are allowed", 3, "3.0 times what is allowed"),
        ("9 requests, where about 3 are usual", 3, "3.0 times what is usual"),
        ("1,635 requests, 84% of what is more than usual", 1, None),
    ],
)
def test_how_many_times_what_is_only_told_where_there_is_a_what(reason: str, limit: int, says: str | None) -> None:
    text = "\n".join(screen(story(at(990, reason=reason, observed=9, limit=limit)), 110))
    assert (says in text) if says else ("times what" not in text)


def test_who_came_back_has_come_back() -> None:
    assert (story(at(2000), at(900)).returns, story(at(900), at(2000)).returns) == (1, 0)


def test_other_detectors_are_heard_and_a_model_is_quoted() -> None:
    base = at(900)
    heard = Finding(
        id="f", tick=905, stage="final", detector="slow", detector_version=1, target=base.target, measure="busy_ms",
        window=Window(start=846, end=906), observed=9, limit=5, severity=5, confidence=0.5, action="notify",
        reason="9 requests open", dry_run=False, outcome="notified", evidence=Evidence(), config_version=1,
    )  # fmt: skip
    features = Evidence(features={"requests": 1, "seed": "x", "votes": "3 of 4", "z_networks": 5.25, "cold": True})
    told = story(at(900, evidence=features), findings=[heard])
    text = "\n".join(screen(told, 100))
    assert "slow, once since 00:15:05: 9 requests open" in text
    assert "Compared  votes 3 of 4; z networks 5.25" in text
    assert "not learned enough" in text


def test_marks_are_of_the_busiest_second() -> None:
    marks, seconds = sparkline([0] * 100 + [7] + [1] * 19)
    assert (len(marks), seconds) == (60, 2)
    assert marks[50] == "█"
    assert sparkline([None, None])[0] == "··"


def test_what_somebody_is_told_to_type_is_a_command_with_these_options() -> None:
    changes: list[dict[str, Any]] = [*({"kind": kind} for kind in ("ip", "api_key", "route")), {"detector": "rate-trial"}]
    commands = [advice.command for live in (True, False) for status in get_args(Status) for change in changes
                for advice in advise(at(900, **change), status, 60, live=live)]  # fmt: skip
    by = Changed(version=3, section="policy", at=1, who="ben", why="x", tried=False)
    commands += [advice.command for advice in advise_back(RulesThen(version=3, made_by=by, since=[], is_latest=True))]
    typed = {command for command in commands if command.startswith("floodwall ")}
    assert len(typed) >= 4
    for words in map(shlex.split, typed):
        command: Any = get_command(app)
        at_word = 1
        while hasattr(command, "commands"):
            command = command.commands[words[at_word]]
            at_word += 1
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words[at_word:] if word.startswith("--")} <= options
    assert advise_feedback("x", "lifted") == []
    assert advise_feedback("x", "in_force")[0].command == 'floodwall feedback x --false-positive --reason "WHY"'


def test_an_allow_that_is_told_is_one_that_a_configuration_takes() -> None:
    told = next(advice.command for advice in advise(at(900), "over", 0, live=True) if advice.command.startswith("[policy]"))
    section = tomllib.loads(told.removeprefix("[policy] "))
    assert parse_config({"policy": section}).policy.allow[0].value == "203.0.113.7"
