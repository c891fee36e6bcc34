"""The nginx edge: what it writes, and a real nginx on loopback that obeys it, where one is installed."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.nginx import RETRY_S, Nginx, NginxFiles
from edge.nginx_rules import TEXTS_MAX, NginxSettings, http_text, server_text, settings_of, supports
from edge.nginx_signatures import Signature, pattern_of, signature_of
from edge.reader import OPERATOR, Reader
from edge.subject import Subject, parse_subject
from engine.clock import SystemClock
from floodwall.commands_nginx import DEFAULT_FOLDER
from schemas.errors import EdgeError, UsageError
from schemas.mitigation import Mitigation, Target
from schemas.prefixes import Prefixes
from tests.edge_parts import HandClock
from tests.mitigations import on_topic, record
from tests.oracles.grouping import path_of, route_of

PATIENCE_S = 15.0
HEADERS = {"ip": "X-Test-Address", "api_key": "X-Key-Id", "account": "X-Account", "cookie": "Cookie", "host": "Host"}
SETTINGS = settings_of(
    [f"{kind}=$http_{name.lower().replace('-', '_')}" for kind, name in HEADERS.items() if kind not in ("cookie", "host")],
    1,
    2,
    has_challenge=True,
    passed="$cookie_passed",
    core=("192.0.2.0/24", "fc00::/7"),
)
needs_nginx = pytest.mark.skipif(
    shutil.which("nginx") is None and os.environ.get("FLOODWALL_REQUIRE_NGINX") != "1",
    reason="expected nginx on the path, found none",
)


def now_ms() -> int:
    return SystemClock().now_ms()


def said(value: str, *, seconds: int = 60, **changes: object) -> Mitigation:
    now = now_ms() // 1000
    return record(value, **{"tick": now, "stage": "final", "action": "block", "expires_at": now + seconds, **changes})


@dataclass
class Site:
    """A real nginx in a folder of its own, and the edge beside it. Whoever asks says in a header from where."""

    folder: Path
    port: int
    settings: NginxSettings = SETTINGS
    clock: HandClock = field(default_factory=lambda: HandClock(now_ms() - 60_000))
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "rules").mkdir()
        rules = self.folder / "rules"
        self.configuration = self.folder / "nginx.conf"
        self.configuration.write_text(
            f"""pid {self.folder}/nginx.pid; error_log {self.folder}/error.log; worker_processes 1;
            events {{ }}
            http {{
                access_log off;
                include {rules}/http.conf;
                server {{
                    listen 127.0.0.1:{self.port};
                    include {rules}/server.conf;
                    location / {{ try_files /none @served; }}
                    location @served {{ return 200 "served"; }}
                    location @floodwall_challenge {{ return 401 "prove it: $floodwall_id"; }}
                }}
            }}"""
        )
        self.nginx = Nginx(("nginx", "-c", str(self.configuration), "-p", str(self.folder)))
        self.point = self.edge()
        self.reader = Reader(Prefixes([]), self.point.supports)
        self.reader.begin({})

    def edge(self) -> NginxFiles:
        return NginxFiles(
            self.folder / "rules", self.settings, self.nginx, 10, self.clock, lambda event, fields: self.told.append(event)
        )

    def start(self) -> None:
        subprocess.run(self.nginx.words, check=True, capture_output=True)
        self.wait_for("served")

    def stop(self) -> None:
        with contextlib.suppress(EdgeError):
            self.nginx.complaint("-s", "stop")
        self.wait_until_silent()

    def wait_until_silent(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while (self.folder / "nginx.pid").exists() and time.monotonic() < until:
            time.sleep(0.02)

    def hear(self, *records: Mitigation) -> list[tuple[str, str]]:
        """Give it records, past any pause; what it acknowledges."""
        for one in records:
            self.reader.take(*on_topic(one))
        self.clock.ms = max(self.clock.ms + 10_000, now_ms())
        self.point.change(self.reader.changes(now_ms()), now_ms())
        return sorted((done.record.id, done.outcome) for done in self.point.work())

    def ask(
        self, address: str = "203.0.113.7", agent: str = "test", source: str = "127.0.0.1", path: str = "/", **more: str
    ) -> str:
        """The body of an answer, or its status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5, source_address=(source, 0))
        headers = {"User-Agent": agent, HEADERS["ip"]: address} | {HEADERS[kind]: value for kind, value in more.items()}
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            body = response.read().decode()
            return body if response.status in (200, 401) else str(response.status)
        except OSError:
            return "no answer"
        finally:
            connection.close()

    def wait_for(self, expected: str, address: str = "203.0.113.7", **more: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while (found := self.ask(address, **more)) != expected:
            assert time.monotonic() < until, f"expected {expected}, got {found}"
            time.sleep(0.02)
        while len(self._workers()) > 1:  # the old one still takes some requests
            assert time.monotonic() < until
            time.sleep(0.02)

    def _workers(self) -> list[str]:
        pid = (self.folder / "nginx.pid").read_text().strip()
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, free_port())
    made.point.open()
    made.point.replace({}, now_ms())
    made.start()
    made.point.work()
    yield made
    made.stop()


@needs_nginx
def test_real_requests_are_blocked_throttled_challenged_and_released(site: Site) -> None:
    acknowledged = site.hear(
        said("203.0.113.7", id="a"), said("203.0.113.8", id="b", action="throttle"), said("2001:db8:1:2::/64", id="c"),
        said("198.51.100.0/24", id="d", action="challenge"), said("203.0.113.9", id="e", action="disable_key"),
    )  # fmt: skip
    assert acknowledged == [("a", "applied"), ("b", "applied"), ("c", "applied"), ("d", "applied")]
    site.wait_for("403")
    assert site.ask("203.0.113.6") == site.ask("2001:db8:1:3::9") == site.ask("nonsense") == "served"
    assert site.ask("2001:db8:1:2::9") == "403"
    assert site.ask("198.51.100.77") == "prove it: d"
    assert site.ask("198.51.100.77", cookie="passed=1") == "served"
    assert site.ask("203.0.113.7", cookie="passed=1") == "403"
    answers = [site.ask("203.0.113.8") for _ in range(8)]
    assert 3 <= answers.count("served") <= 5
    assert answers.count("429") == 8 - answers.count("served")
    site.hear(said("203.0.113.7", id="a", state="lifted"), said("203.0.113.8", id="b", action="throttle", state="lifted"))
    site.wait_for("served")
    site.wait_for("served", "203.0.113.8")
    assert {site.ask("203.0.113.8") for _ in range(8)} == {"served"}
    assert site.point.reloads == 3


@needs_nginx
def test_a_ban_ends_on_time_though_the_edge_is_dead_and_nginx_is_told_nothing(site: Site) -> None:
    blocked = said("203.0.113.7", seconds=3)
    site.hear(blocked, said("203.0.113.0/24", action="throttle", seconds=60))
    site.wait_for("403")
    site.wait_for("served")
    assert now_ms() >= blocked.expires_at * 1000
    assert {site.ask("203.0.113.7") for _ in range(8)} == {"served", "429"}, "the wider throttle is still there"


@needs_nginx
def test_agents_keys_and_accounts_are_compared_whole_and_in_their_own_case(site: Site) -> None:
    agent = 'curl/8.5 (+"https://x.example/{a}?$b=1"; .*)'
    site.hear(
        said(agent, kind="user_agent", id="a"), said("f00d" * 16, kind="api_key", id="b"), said("Ana", kind="account", id="c")
    )
    site.wait_for("403", agent=agent)
    assert site.ask(agent=agent.upper()) == site.ask(agent=agent + "x") == site.ask(agent="curl/8.5") == "served"
    assert site.ask(api_key="f00d" * 16) == site.ask(account="Ana") == "403"
    assert site.ask(api_key="f00d") == site.ask(account="ana") == "served"


@needs_nginx
def test_an_operators_allow_holds_inside_a_blocked_network_and_against_an_agent(site: Site) -> None:
    site.hear(
        said("203.0.113.0/24"), said("bad", kind="user_agent"), said("203.0.113.8", action="allow", detector=OPERATOR)
    )  # fmt: skip
    site.wait_for("403")
    assert site.ask("203.0.113.8") == site.ask("203.0.113.8", agent="bad") == "served"
    assert site.ask("192.0.3.1", agent="bad") == "403"


def conjunction(**attributes: str) -> str:
    return orjson.dumps({"service": "127.0.0.1", **attributes}, option=orjson.OPT_SORT_KEYS).decode()


@needs_nginx
def test_a_signature_is_all_of_its_attributes_together(site: Site) -> None:
    bot = conjunction(user_agent="bot/1 (x)", net="203.0.0.0/16", route="GET /v1/users/{id}/keys")
    six = conjunction(user_agent="six", net="2001:db8:1::/48")
    site.hear(said(bot, kind="signature", id="a", action="challenge"), said(six, kind="signature", id="b"))
    assert site.reader.refusals(now_ms()) == []
    site.wait_for("prove it: a", agent="bot/1 (x)", path="/v1/users/12345/keys")
    for path in ("/v1/users/deadbeef-1/keys?page=2", "/v1/users/" + "x" * 23 + "1/keys"):
        assert site.ask(agent="bot/1 (x)", path=path) == "prove it: a"
    for path in ("/v1/users/me/keys", "/v1/users/12345/keys/", "/v1/users/12345/", "/v1/users/1/2/keys", "/"):
        assert site.ask(agent="bot/1 (x)", path=path) == "served"
    assert site.ask(agent="bot/1", path="/v1/users/1/keys") == "served"
    assert site.ask("203.1.0.1", agent="bot/1 (x)", path="/v1/users/1/keys") == "served"
    assert site.ask("2001:db8:1:7::1", agent="six") == "403"
    assert site.ask("2001:db8:2::1", agent="six") == site.ask("203.0.113.7", agent="six") == "served"


SEGMENTS = st.one_of(
    st.text("0123456789abcdefABCDEF-", max_size=10),
    st.text("01xyz-._~%", max_size=30),
    st.sampled_from(["{id}", "me", "", "v1"]),
)
PATHS = st.builds(
    lambda parts, query: "/" + "/".join(parts) + query, st.lists(SEGMENTS, max_size=4), st.sampled_from(["", "?a=1/2", "#x"])
)


@given(PATHS, PATHS)
def test_a_route_is_matched_by_the_paths_that_are_folded_into_it(named: str, asked: str) -> None:
    route = route_of("GET", named)
    found = Signature(service="x", route=route)
    lines = "\n".join(["x", f"GET {asked}", "", "", "", "", ""])
    matched = re.search(pattern_of(found, "x"), lines) is not None
    if "{id}" not in path_of(asked):  # a client that writes {id} itself is no id
        assert matched == (route_of("GET", asked) == route)
    else:
        assert not matched or route_of("GET", asked) == route


@needs_nginx
def test_a_signature_of_another_host_is_another(site: Site) -> None:
    site.hear(said(orjson.dumps({"service": "api.example", "user_agent": "bot"}).decode(), kind="signature"))
    site.wait_for("403", agent="bot", host="API.example:8080")
    assert site.ask(agent="bot", host="www.example") == site.ask(agent="bot") == "served"


@pytest.mark.parametrize(
    "value",
    [
        conjunction(), conjunction(email_domain="mail.example"), conjunction(fingerprint="t13d"), conjunction(route="GET x"),
        conjunction(route="GET /" + "x" * 160), conjunction(user_agent="a\\xff"), conjunction(user_agent="a\nb"),
        conjunction(net="203.0.113.0/25"), conjunction(net="x"), '{"service":"default","user_agent":"bot"}', "{}", "nonsense",
    ],
)  # fmt: skip
def test_a_signature_that_nginx_cannot_express_is_unsupported(value: str) -> None:
    assert not supports(SETTINGS, parse_subject(Target(type="signature", value=value)), "throttle")


def test_of_the_only_service_the_host_is_not_compared() -> None:
    only = settings_of((), 1, 2, has_challenge=False, only_service="default")
    bot = Subject("signature", '{"service":"default","user_agent":"bot"}')
    assert supports(only, bot, "block")
    assert not supports(only, Subject("signature", '{"service":"other","user_agent":"bot"}'), "block")
    found = signature_of(bot, (), "default", "default")
    assert found is not None
    assert pattern_of(found, "default").startswith(r"^[^\n]*\n[^\n]*\nbot\n")


@needs_nginx
def test_the_allowlist_core_passes_whatever_its_agent(site: Site) -> None:
    site.hear(said("bad", kind="user_agent"), said("192.0.2.0/24"))
    site.wait_for("403", agent="bad")
    assert site.ask("192.0.2.1", agent="bad") == site.ask("fc00::1", agent="bad") == "served"


@needs_nginx
def test_a_narrow_throttle_does_not_soften_a_wider_block(site: Site) -> None:
    site.hear(said("203.0.113.0/24"), said("203.0.113.7", action="throttle"))
    site.wait_for("403")
    assert site.ask("203.0.113.8") == "403"


@needs_nginx
def test_the_clients_own_address_counts_unless_another_variable_is_named(tmp_path: Path) -> None:
    site = Site(tmp_path, free_port(), settings=settings_of((), 1, 2, has_challenge=False))
    site.point.open()
    site.start()
    try:
        site.hear(said("127.0.0.9"))
        site.wait_for("403", source="127.0.0.9")
        assert site.ask() == "served"
    finally:
        site.stop()


@needs_nginx
def test_nginx_is_told_once_in_some_seconds_and_not_when_nothing_has_changed(site: Site) -> None:
    before = site.point.reloads
    assert site.hear(said("203.0.113.7", id="a")) == [("a", "applied")]
    for number in range(5):
        site.reader.take(*on_topic(said(f"203.0.113.{10 + number}", id=str(number))))
        site.clock.ms += 100
        site.point.change(site.reader.changes(now_ms()), now_ms())
        assert site.point.work() == []
    assert site.point.reloads == before + 1
    site.clock.ms += 10_000
    assert len(site.point.work()) == 5
    assert site.point.reloads == before + 2
    assert site.hear() == []
    assert site.hear(said("203.0.113.50", dry_run=True)) == []
    assert site.point.reloads == before + 2


@needs_nginx
def test_what_is_only_extended_is_told_when_its_end_is_near(site: Site) -> None:
    before = site.point.reloads
    now = now_ms() // 1000
    assert site.hear(said("203.0.113.7", id="a", seconds=100)) == [("a", "applied")]
    assert site.hear(said("203.0.113.7", id="b", tick=now + 60, seconds=160)) == [("b", "applied")]
    assert site.hear() == []
    assert site.point.reloads == before + 1
    site.clock.ms = now * 1000 + 69_000
    assert site.point.work() == []
    assert site.point.reloads == before + 1
    site.clock.ms += 3000
    assert site.point.work() == []
    assert site.point.reloads == before + 2
    assert ";block;b;" in (site.folder / "rules" / "http.conf").read_text()
    assert site.hear(said("203.0.113.7", id="b", tick=now + 61, seconds=90)) == []
    assert site.point.reloads == before + 3, "what ends sooner is told at once"


@needs_nginx
def test_a_file_that_nginx_refuses_is_taken_back_and_tried_again(site: Site) -> None:
    good = (site.folder / "rules" / "http.conf").read_bytes()
    whole = site.configuration.read_text()
    site.configuration.write_text(whole + "\nnonsense;")  # somebody is editing it
    assert site.hear(said("203.0.113.7", id="a")) == []
    assert site.hear() == []
    assert site.told == ["nginx_refuses"]
    assert (site.folder / "rules" / "http.conf").read_bytes() == good
    site.configuration.write_text(whole)
    assert site.hear() == [("a", "applied")]
    site.wait_for("403")
    assert site.told == ["nginx_refuses", "nginx_back"]


@needs_nginx
def test_what_somebody_else_has_changed_is_noticed_and_put_back(site: Site) -> None:
    site.hear(said("203.0.113.7"))
    assert site.point.is_intact()
    (site.folder / "rules" / "http.conf").write_text("")
    assert not site.point.is_intact()
    site.point.replace(site.reader.table, now_ms())
    assert site.hear() == []
    assert site.point.is_intact()
    site.wait_for("403")


@needs_nginx
def test_an_nginx_that_is_away_finds_the_file_when_it_comes_and_only_then_is_it_acknowledged(site: Site) -> None:
    site.stop()
    assert site.hear(said("203.0.113.7", id="a")) == []
    assert site.hear() == []
    assert site.told == ["nginx_away"]
    subprocess.run(site.nginx.words, check=True, capture_output=True)
    site.wait_for("403")
    assert site.hear() == [("a", "applied")]
    assert site.told == ["nginx_away", "nginx_back"]


@needs_nginx
def test_after_a_death_and_a_restart_the_file_is_the_topics(site: Site) -> None:
    site.hear(said("203.0.113.7", id="a"), said("203.0.113.8", id="b"))
    site.wait_for("403")
    again = site.edge()
    again.open()
    site.wait_for("403")  # what is there holds until the topic has been read
    site.reader.take(*on_topic(said("203.0.113.7", id="a", state="lifted")))
    site.reader.changes(now_ms())
    again.replace(site.reader.table, now_ms())
    assert [done.record.id for done in again.work()] == ["b"]
    site.wait_for("served")
    assert site.ask("203.0.113.8") == "403"
    again.empty()
    site.wait_for("served", "203.0.113.8")


@needs_nginx
def test_it_can_be_started_with_other_options(site: Site) -> None:
    rules = site.folder / "rules"
    plain = settings_of((), 1, 2, has_challenge=False)
    (rules / "http.conf").write_text(http_text(plain, {}))
    (rules / "server.conf").write_text(server_text(plain))
    site.edge().open()
    assert "challenge" in (rules / "http.conf").read_text()
    before = [(rules / name).read_bytes() for name in ("http.conf", "server.conf")]
    site.settings, whole = plain, site.configuration.read_text()
    site.configuration.write_text(whole + "nonsense;")
    with pytest.raises(EdgeError, match="expected a configuration that nginx takes"):
        site.edge().open()
    assert [(rules / name).read_bytes() for name in ("http.conf", "server.conf")] == before
    site.configuration.write_text(whole)


@needs_nginx
def test_a_configuration_that_does_not_include_the_file_is_refused_with_the_lines_to_add(tmp_path: Path) -> None:
    site = Site(tmp_path, free_port())
    site.configuration.write_text(f"pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log; events {{ }} http {{ }}")
    with pytest.raises(EdgeError, match=rf"put `include {tmp_path}/rules/http.conf;` into http"):
        site.point.open()
    site.configuration.write_text("nonsense;")
    with pytest.raises(EdgeError, match=r"expected a configuration that nginx takes, got: .*nonsense"):
        site.point.open()


@needs_nginx
def test_the_bytes_of_a_hostile_record_stay_inside_their_quotes(site: Site) -> None:
    hostile = '"; return 200; } $request_uri {\\'
    site.hear(
        said(hostile.rstrip("\\"), kind="user_agent", id='x"; return 200 "$host'),
        said("203.0.113.7", id="$host\n; }", reason=hostile),
        said(hostile, kind="account", id="d"), said("ä", kind="account", id="e"), said("x" * 96, kind="account", id="f"),
    )  # fmt: skip
    assert site.told == []
    site.wait_for("403")
    assert [refusal.record.id for refusal in site.reader.refusals(now_ms())] == ["d", "e", "f"]


def test_without_nginx_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    point = NginxFiles(tmp_path, SETTINGS, Nginx(), 10, HandClock(), lambda event, fields: None)
    with pytest.raises(EdgeError, match="expected the program nginx, found none on the path: install nginx"):
        point.open()
    gone = NginxFiles(tmp_path / "none", SETTINGS, Nginx(), 10, HandClock(), lambda event, fields: None)
    with pytest.raises(EdgeError, match=r"expected to write to .*none, got: No such file"):
        gone.open()
    assert DEFAULT_FOLDER.is_absolute()
    assert RETRY_S > 0


def test_a_dry_run_shows_the_file_and_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    shown: list[str] = []
    point = NginxFiles(tmp_path, SETTINGS, Nginx(), 10, HandClock(), lambda event, fields: None, show=shown.append)
    point.open()
    reader = Reader(Prefixes([]), point.supports)
    reader.begin({})
    reader.take(*on_topic(record(action="block", id="a", expires_at=1_800_000_000)))
    reader.changes(1_000_000)
    point.replace(reader.table, 1_000_000)
    assert point.work() == []
    assert '    203.0.113.7 "1800000000;block;a;' in shown[0]
    assert list(tmp_path.iterdir()) == []


def test_more_names_than_nginx_should_compare_are_acknowledged_as_errors(tmp_path: Path) -> None:
    class Willing(Nginx):
        def complaint(self, *arguments: str) -> str | None:
            return None

    clock = HandClock()
    point = NginxFiles(tmp_path, SETTINGS, Willing(), 10, clock, lambda event, fields: None)
    reader = Reader(Prefixes([]), point.supports)
    reader.begin({})
    for number in range(TEXTS_MAX + 2):
        reader.take(*on_topic(record(f"agent{number}", kind="user_agent", action="throttle", id=str(number))))
    reader.take(*on_topic(record("worst", kind="user_agent", action="block", id="worst")))
    reader.changes(1_000_000)
    point.replace(reader.table, 1_000_000)
    outcomes = {done.record.id: done.outcome for done in point.work()}
    assert sum(outcome == "applied" for outcome in outcomes.values()) == TEXTS_MAX
    assert (len(outcomes), outcomes["worst"]) == (TEXTS_MAX + 3, "applied")
    extended = [
        record(f"agent{n}", kind="user_agent", action="throttle", id=f"{n}+", tick=999, expires_at=1101) for n in range(3)
    ]
    for one in extended:
        reader.take(*on_topic(one))
    point.change(reader.changes(1_000_000), 1_000_000)
    applied = {f"{n}+" for n in range(3) if outcomes[str(n)] == "applied"}
    assert {done.record.id for done in point.work()} == applied


@pytest.mark.parametrize("word", ["ip", "ip=remote_addr", "country=$a b", "route=$uri", "ip=$x;", "=$x"])
def test_a_match_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match=r"expected KIND=\$variable"):
        settings_of([word], 1, 2, has_challenge=False)


def test_the_same_mitigations_give_the_same_bytes_and_no_challenge_is_there_unless_told() -> None:
    plain = settings_of((), 5, 10, has_challenge=False)
    reader = Reader(Prefixes([]), lambda subject, action: True)
    reader.begin({})
    for value in ("203.0.113.9", "203.0.113.8", "2001:db8::/48"):
        reader.take(*on_topic(record(value)))
    reader.changes(1_000_000)
    backwards = dict(reversed(reader.table.items()))
    assert http_text(plain, reader.table) == http_text(plain, backwards)
    assert "challenge" not in http_text(plain, {})
    assert "challenge" not in server_text(plain)
