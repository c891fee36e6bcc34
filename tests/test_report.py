"""The report of a replay: right numbers, nothing secret, a page that anyone can open and read."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson
import pytest
from typer.testing import CliRunner

from engine.clock import SystemClock
from engine.embedded import Embedded
from floodwall.cli import app
from replay.report.document import Report, TargetStory
from replay.report.evidence import acknowledgements
from replay.report.gather import Gathering
from replay.report.incidents import Group, Told, began, first_seen, incidents_of, phases_of
from replay.report.page import BYTES_MAX, render
from replay.report.talking import BLOCKS, COHORT, PER_BLOCK, T_DIMENSION, T_HASH
from replay.report.words import collateral_text, length, safe_features
from replay.report.write import Reporting
from replay.run import replay
from replay.shown import Shown
from schemas.acknowledgement import Acknowledgement, encode_acknowledgement
from schemas.config import Config
from schemas.fields import Dimension
from schemas.mitigation import Target, encode_line
from schemas.tally import Tally
from tests.engines import as_chunk, config_of
from tests.mitigations import record
from tests.oracles import gathering as oracle

T0 = 1_795_392_000
KEY, PASSWORD, MAIL = "sk-live-QUJDREVGR0hJSktMTU5PUFFSU1RVVg", "Tr0ub4dor&3-hunter2", "alice.surname@example.org"
SECRETS = (KEY, PASSWORD, MAIL, "hunter2", "surname", "QUJDREVGR0hJSktM")
FLOOD = "203.0.113.7"


def traffic(span_s: int = 600) -> bytes:
    """Ten minutes of some clients with keys; in the fifth and sixth somebody fails, registers, and spills secrets."""
    chance = random.Random(11)
    lines = []
    for second in range(span_s):
        found: list[dict[str, Any]] = [_honest(chance) for _ in range(6)]
        if 240 <= second < 360:
            found += [_hostile(chance) for _ in range(40)]
            found.append(
                {"event": "registration", "client_ip": f"198.51.100.{second % 9}", "email": f"a{second}@tenminutes.example",
                 "user_agent": "curl/8.5.0", "method": "POST", "path": "/signup", "status": 201, "user_name": MAIL,
                 "password": PASSWORD}
            )  # fmt: skip
        for place, event in enumerate(found):
            lines.append(orjson.dumps({"time": T0 + second + place / 100, "country": "DE", **event}))
    lines.insert(700, b'{"time": "never", "api_key": "' + KEY.encode() + b'"')
    return b"\n".join(lines) + b"\n"


def _honest(chance: random.Random) -> dict[str, Any]:
    return {
        "client_ip": f"192.0.2.{chance.randrange(40)}", "method": "POST", "path": "/v1/chat/completions", "status": 200,
        "api_key": f"{KEY}{chance.randrange(9)}", "account": f"acme-{chance.randrange(9)}", "tokens_in": 500, "tokens_out": 90,
        "cost": 0.01, "user_agent": "openai-python/1.2", "host": "api.example.com",
    }  # fmt: skip


def _hostile(chance: random.Random) -> dict[str, Any]:
    spilled = chance.choice(SECRETS[:3])
    return {
        "client_ip": FLOOD, "method": "POST", "status": 401, "api_key": KEY, "account": MAIL, "user_name": MAIL,
        "path": chance.choice((f"/login/{spilled}?password={PASSWORD}", f"/reset/{KEY}", f"/{spilled}")),
        "user_agent": chance.choice((f"bot {spilled}", f"{spilled}/1.0", "curl/8.5.0")),
        "host": chance.choice((KEY, "api.example.com")),
        "referrer": f"https://example.com/?token={KEY}", "fingerprint": KEY, "country": "FR",
    }  # fmt: skip


def config() -> Config:
    return config_of({"profile": "api"})


def written(folder: Path, data: bytes, name: str = "log") -> tuple[Report, bytes]:
    """A run over a log, and its report as data and page."""
    log, page = folder / f"{name}.ndjson", folder / f"{name}.html"
    log.write_bytes(data)
    sink = Reporting(config(), None, None, report=page, report_json=folder / f"{name}.json")
    outcome = replay(sink.config, [str(log)], sink, SystemClock(), onlooker=sink.gathering.see)
    sink.finish(outcome, [str(log)], ["floodwall", "replay", str(log), "kafka://me:secret-word@broker/x"], 1000 * T0)
    return msgspec.json.decode((folder / f"{name}.json").read_bytes(), type=Report), page.read_bytes()


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, bytes]:
    return written(tmp_path_factory.mktemp("report"), traffic())


class Page(HTMLParser):
    """What of a page its structure is checked by."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[Counter[str]] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append(Counter())
        elif self.tables and tag in ("caption", "thead", "tr", "th", "td"):
            self.tables[-1][tag] += 1

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def test_the_report_tells_who_when_and_how_much(attacked: tuple[Report, bytes]) -> None:
    report, _ = attacked
    assert report.summary.verdict == "attack"
    assert len(report.summary.sentences) == 3
    flood = [one for one in report.targets if one.whom == f"address {FLOOD}"]
    assert flood
    assert flood[0].standing == "enforced"
    assert {phase.name for phase in report.phases} - {"onset"} == {"before", "attack", "mitigated", "after"}
    assert [phase.start for phase in report.phases[1:]] == [phase.end for phase in report.phases[:-1]]
    assert T0 + 240 <= report.incidents[0].began <= T0 + 241
    assert T0 + 240 <= report.incidents[0].crossed < T0 + 260
    requests = report.timeline.series[0]
    assert requests.total == 600 * 6 + 120 * 41
    assert requests.peak == pytest.approx(47, abs=1)
    assert report.registrations.total == 120
    assert "curl/8.5.0" in report.registrations.cohorts[0].alike or "tenminutes" in report.registrations.cohorts[0].alike
    addresses = next(table for table in report.talkers if table.dimension == "ip")
    assert addresses.rows[0].value == FLOOD
    assert addresses.rows[0].change == "new"
    assert addresses.rows[0].stopped
    assert report.collateral.share == 0
    assert report.what_if.choices[0].stopped >= report.what_if.choices[-1].stopped
    assert sum(report.quality.unreadable.values()) == 1
    assert report.quality.counts["counted"] == 600 * 6 + 120 * 41


def test_evidence_has_redacted_lines_and_where_they_lie(attacked: tuple[Report, bytes]) -> None:
    report, _ = attacked
    detail = next(one.detail for one in report.targets if one.detail is not None and one.whom == f"address {FLOOD}")
    assert detail.events > 0
    assert len(detail.lines) == 3
    assert all(f"client_ip={FLOOD}" in line.text for line in detail.lines)
    assert detail.answers.keys() == {"401"}


def test_no_key_mail_address_or_password_is_in_page_or_json(attacked: tuple[Report, bytes]) -> None:
    report, page = attacked
    for text in (page.decode(), msgspec.json.encode(report).decode()):
        assert not [secret for secret in (*SECRETS, "secret-word") if secret in text]
        assert not [secret for secret in (*SECRETS, "secret-word") if secret.replace("&", "&amp;") in text]


def test_what_does_not_look_like_its_kind_is_masked_but_can_be_told_apart() -> None:
    shown = Shown("seed")
    for kind in ("ip", "account", "api_key", "email_domain", "service", "route", "user_agent", "fingerprint", "country", "asn"):
        texts = {shown.value(kind, secret) for secret in (KEY, MAIL, PASSWORD)}
        assert len(texts) == 3
        assert not [secret for text in texts for secret in SECRETS if secret in text]
    assert shown.value("account", "acme-7") == "acme-7"
    assert shown.value("api_key", "sha256:83b0095b2a7f19ca") == "sha256:83b0095b2a7f19ca"
    mail = Target(type="account", value=MAIL)
    assert MAIL not in shown.reason(f"12 requests of account {MAIL}, where 5 are allowed", mail)
    assert MAIL not in shown.reason("something else altogether", mail)
    signature = Target(type="signature", value=json.dumps({"service": "www.example.com", "user_agent": f"bot {KEY}"}))
    assert KEY not in shown.reason(f"9 requests from user agent bot {KEY} on service www.example.com", signature)
    assert safe_features({"requests": 3, "owner": MAIL, "key": KEY, KEY: 1, "cold": True}) == {"requests": 3, "cold": True}


def test_usual_traffic_that_is_touched_is_a_number_where_it_is_exact_and_else_a_bound() -> None:
    counted = {"requests": 1000, "touched": 20, "unknown": 0, "stopped": 3}
    exact = "Stopping them touches 2.00 % of ordinary traffic, by the requests of quiet times."
    assert collateral_text(**counted, exact=True) == exact
    assert collateral_text(**counted, exact=False).startswith("Stopping them touches at most 2.00 % of ordinary traffic")


def test_the_page_needs_nothing_runs_nothing_and_has_its_landmarks(attacked: tuple[Report, bytes]) -> None:
    _, data = attacked
    page, text = Page(data), data.decode()
    assert len(data) < BYTES_MAX
    assert [page.count(tag) for tag in ("h1", "main", "header", "footer", "nav")] == [1, 1, 1, 1, 1]
    assert page.count("script") == page.count("img") == page.count("iframe") == 0
    links = [value for tag, found in page.tags for name, value in found.items() if name in ("href", "src", "xlink:href")]
    assert links
    assert all(link is not None and link.startswith(("#", "data:,")) for link in links)
    assert not re.search(r"url\(|@import", text)
    assert not [name for tag, found in page.tags for name in found if name.startswith("on")]
    identifiers = [found["id"] for _, found in page.tags if "id" in found]
    assert len(identifiers) == len(set(identifiers))
    assert {link[1:] for link in links if link and link.startswith("#")} <= set(identifiers)
    assert "default-src 'none'" in text
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_tables_have_captions_and_scopes_and_charts_have_words(attacked: tuple[Report, bytes]) -> None:
    _, data = attacked
    page = Page(data)
    assert page.tables
    assert all(table["caption"] == 1 and table["thead"] == 1 for table in page.tables)
    assert all(found.get("scope") in ("col", "row") for tag, found in page.tags if tag == "th")
    figures = [found for tag, found in page.tags if tag == "figure"]
    assert len(figures) >= 5
    assert all("aria-label" in found for found in figures)
    assert all(found.get("aria-hidden") == "true" for tag, found in page.tags if tag == "svg")
    assert "@media print" in data.decode()
    assert "prefers-color-scheme: dark" in data.decode()


def test_a_quiet_time_and_an_empty_one_are_told_too(tmp_path: Path) -> None:
    quiet, page = written(tmp_path, b"\n".join(traffic(100).splitlines()[:500]) + b"\n", "quiet")
    assert quiet.summary.verdict == "quiet"
    assert not quiet.incidents
    assert b"Nothing unusual was found" in page
    empty, page = written(tmp_path, b"\n", "empty")
    assert empty.summary.verdict == "empty"
    assert b"nothing to look at" in page


def test_five_thousand_mitigations_are_listed_in_less_than_three_megabytes(attacked: tuple[Report, bytes]) -> None:
    report, _ = attacked
    page = render(many_targets(report))
    assert len(page) < BYTES_MAX
    assert page.count(b"address 10.") >= 4000


def many_targets(report: Report) -> Report:
    story: TargetStory = msgspec.structs.replace(report.targets[0], detail=None)
    stories = [
        msgspec.structs.replace(story, id=f"{place:032x}", whom=f"address 10.0.{place // 250}.{place % 250}")
        for place in range(5000)
    ]
    return msgspec.structs.replace(report, targets=[*report.targets, *stories][:5000])


def seen(data: bytes, chunk_events: int, **settings: Any) -> tuple[Gathering, list[Tally]]:
    """What is gathered of a log, and the tallies that were shown."""
    chosen = config_of(chunk_events=chunk_events)
    gathering, tallies = Gathering(chosen.time.lateness_s, **settings), []
    engine = Embedded(chosen)

    def look(tally: Tally) -> None:
        copy = tally.take(np.arange(tally.rows))
        copy.sample = _copied(tally)
        tallies.append(copy)
        gathering.see(tally)

    engine.onlooker = look
    engine.open("log", 10**15)
    engine.feed("log", as_chunk(data), len(data), 0)
    engine.finish()
    gathering.finish()
    return gathering, tallies


def _copied(tally: Tally) -> Any:
    sample = tally.sample
    return type(sample)(
        sample.cells.copy(), sample.entries.copy(), sample.words.copy(), sample.text_start.copy(), sample.text.copy()
    )  # fmt: skip


@pytest.mark.parametrize("chunk_events", [1000, 3700])
def test_what_is_gathered_is_what_a_plain_count_finds(chunk_events: int) -> None:
    gathering, tallies = seen(traffic(), chunk_events)
    assert gathering.unplaced == gathering.pruned == 0
    by_tick = oracle.requests_by_tick(tallies)
    width, origin = gathering.width_s, gathering.origin
    expected = np.zeros(len(gathering.series), np.int64)
    for tick, count in by_tick.items():
        expected[(tick - origin) // width] += count
    assert (gathering.series[:, 0] == expected).all()
    by_key: Counter[tuple[int, int, int]] = Counter()
    for (dimension, key, tick), count in oracle.requests_by_key(tallies).items():
        by_key[dimension, key, (tick - origin) // width // PER_BLOCK] += count
    used = int(gathering._used[0])
    found: Counter[tuple[int, int, int]] = Counter()
    for talker, blocks in zip(gathering._talkers[:used].tolist(), gathering._blocks[:used].tolist(), strict=True):
        if talker[T_DIMENSION] != COHORT:
            found.update({(talker[T_DIMENSION], talker[T_HASH], at): count for at, count in enumerate(blocks) if count})
    assert found == by_key
    alike = [one.registrations for _, one in gathering.cohorts(np.ones(BLOCKS), 10_000)]
    assert alike == oracle.registrations_alike(tallies)


def test_a_longer_time_makes_wider_buckets_and_loses_nothing() -> None:
    lines = traffic(60).splitlines()[:-1]  # the last one cannot be read
    later = [
        orjson.dumps({**event, "time": event["time"] + 40 * 86_400 + step})
        for step, event in enumerate(map(orjson.loads, lines[:300]))
    ]
    gathering, _ = seen(b"\n".join([*lines, *later]) + b"\n", 1000)
    assert gathering.width_s == 3600
    assert gathering.series[:, 0].sum() == len(lines) + len(later) == sum(gathering.total_blocks())


def test_a_full_table_keeps_the_busiest_and_says_so() -> None:
    lines = [
        b'{"time":%d,"client_ip":"10.%d.%d.%d","path":"/","status":200}' % (T0 + k // 100, k % 7, k // 250 % 250, k % 250)
        for k in range(6000)
    ]
    busy = [b'{"time":%d,"client_ip":"192.0.2.1","path":"/","status":200}' % (T0 + k // 100) for k in range(6000)]
    mixed = [line for pair in zip(lines, busy, strict=True) for line in pair]
    gathering, _ = seen(b"\n".join(mixed) + b"\n", 500, talkers=1024, kept=64)
    assert gathering.pruned > 0
    first = next(iter(gathering.talkers(Dimension.IP, np.ones(BLOCKS), 1)))
    assert (first.value, first.requests) == ("192.0.2.1", 6000)


def test_entropy_is_none_for_one_address_and_rises_with_each_more() -> None:
    def bits(many: int) -> float:
        lines = [b'{"time":%d,"client_ip":"192.%d.2.1","path":"/","status":200}' % (T0, k % many) for k in range(64)]
        gathering, _ = seen(b"\n".join(lines) + b"\n", 500)
        return float(np.nanmax(gathering.entropy()))

    assert bits(1) == 0
    assert 0.9 < bits(2) <= 1
    assert 2.5 < bits(8) <= 3


def test_one_wrong_clock_does_not_stretch_the_timeline() -> None:
    lines = traffic(60).splitlines()
    lines.insert(100, b'{"time":%d,"client_ip":"192.0.2.1","path":"/","status":200}' % (T0 + 10**9))
    gathering, _ = seen(b"\n".join(lines) + b"\n", 1000)
    assert gathering.width_s == 1
    assert gathering.unplaced > 0


def test_incidents_are_parted_by_quiet_and_begin_with_their_first_sign() -> None:
    told = [_told("a", 1000), _told("b", 1300), _told("c", 5000)]
    groups = incidents_of(told, {0: [1000, 1060], 1: [1300], 2: [5000]})
    assert [(group.crossed, group.last, len(group.told)) for group in groups] == [(1000, 1300, 2), (5000, 5000, 1)]
    assert began(groups[0], {}, 0) == 940
    assert began(groups[0], {told[0].first.id: 987}, 0) == 987
    assert began(Group(told[:1], 1000, 1000), {}, 980) == 980
    assert first_seen([5, *[0] * 30, None, 0, 2, 0, 3], 100) == 133
    assert first_seen([0, None], 100) is None


def _told(value: str, tick: int) -> Told:
    one = msgspec.structs.replace(record(value=value), tick=tick, id=value, issued_at=tick + 4)
    one = msgspec.structs.replace(one, window=msgspec.structs.replace(one.window, start=tick - 60, end=tick))
    return Told(one, one, 1, tick, tick + 300)


class Message(NamedTuple):
    """A message of a topic."""

    data: bytes
    at_ms: int

    def value(self) -> bytes:
        return self.data

    def timestamp(self) -> tuple[int, int]:
        return 0, self.at_ms


def test_the_time_to_enforce_is_from_publication_to_the_first_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = record(id="a"), record(id="b")
    acks = [
        Acknowledgement(edge=edge, id=name, target=one.target, action="throttle", outcome=outcome, applied_at_ms=at_ms)
        for edge, name, outcome, at_ms in (
            ("e1", "a", "applied", 5900), ("e2", "a", "applied", 5400), ("e3", "a", "error", 5100), ("e1", "c", "applied", 1)
        )
    ]  # fmt: skip
    topics = {
        "mitigations": [Message(encode_line(one), 5000), Message(encode_line(one), 9000), Message(b"{", 1)],
        "enforcement-acks": [Message(encode_acknowledgement(ack), 1) for ack in acks],
    }
    monkeypatch.setattr("broker.connection.Connection.check", lambda self: None)
    monkeypatch.setattr("broker.reading.read_topic_from", lambda connection, topic, from_ms: iter(topics[topic]))
    found = acknowledgements(config_of({"kafka": {"development": True}}), [one, other], 0)
    assert found.seconds == {"a": 0.4}
    assert found.edges == 2
    topics["enforcement-acks"] = []
    assert "No edge" in acknowledgements(config_of({"kafka": {"development": True}}), [one], 0).note


def test_a_log_that_begins_under_attack_has_only_its_quiet_end_as_usual(tmp_path: Path) -> None:
    lines = traffic().splitlines()
    times = [orjson.loads(line)["time"] if line.endswith(b"}") else 0 for line in lines]
    under_attack = [line for line, at in zip(lines, times, strict=True) if at >= T0 + 245]
    report, _ = written(tmp_path, b"\n".join(under_attack) + b"\n", "late")
    assert report.summary.verdict == "attack"
    assert "before" not in {phase.name for phase in report.phases}
    addresses = next(table for table in report.talkers if table.dimension == "ip")
    assert addresses.rows[0].value == FLOOD
    assert addresses.rows[0].before_per_s in (None, 0)
    assert report.collateral.share == 0


def test_phases_follow_each_other_without_a_gap() -> None:
    phases = phases_of((0, 1000), 100, 130, 134, 600)
    assert [(one.name, one.start, one.end) for one in phases] == [
        ("before", 0, 100), ("onset", 100, 130), ("attack", 130, 134), ("mitigated", 134, 601), ("after", 601, 1000),
    ]  # fmt: skip
    told_only = phases_of((0, 1000), 100, 130, None, 600)
    assert [one.name for one in told_only] == ["before", "onset", "attack", "after"]


def test_lengths_are_told_in_two_units() -> None:
    assert [length(one) for one in (1, 119, 150, 3600, 9000, 200_000)] == [
        "1 second", "119 seconds", "2 minutes 30 seconds", "60 minutes", "2 hours 30 minutes", "2.3 days",
    ]  # fmt: skip


def test_a_report_as_json_by_its_name_and_what_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log.ndjson"
    log.write_bytes(b"\n".join(traffic(20).splitlines()) + b"\n")
    run = CliRunner().invoke
    assert run(app, ["replay", str(log), "--report", str(tmp_path / "r.json")]).exit_code == 0
    assert json.loads((tmp_path / "r.json").read_bytes())["schema"] == 1
    nowhere = run(app, ["replay", str(log), "--report", str(tmp_path / "no" / "r.html")])
    assert nowhere.exit_code != 0
    both = run(app, ["replay", str(log), "--report", str(tmp_path / "r.html"), "--state", str(tmp_path / "s")])
    assert both.exit_code != 0


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(BROWSER is None and not os.environ.get("FLOODWALL_REQUIRE_BROWSER"), reason="no chromium here")
def test_a_browser_has_nothing_to_complain_of(attacked: tuple[Report, bytes], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_bytes(attacked[1])
    assert BROWSER is not None, "expected chromium, because FLOODWALL_REQUIRE_BROWSER is set"
    done = subprocess.run(
        [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert attacked[0].summary.headline in done.stdout.decode()
    assert b"CONSOLE" not in done.stderr
