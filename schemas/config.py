"""Configuration as typed structs; the comments beside the fields are its documentation.

A file is TOML. Unknown keys are errors, and a bad value names its path and its bound. Units stand in the names.
"""

from __future__ import annotations

import ipaddress
import math
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from schemas.errors import ConfigError
from schemas.fields import Dimension, Item, Measure
from schemas.topics import RAW

Profile = Literal["web", "api"]
Action = Literal["notify", "challenge", "throttle", "block", "disable_key", "restrict_registration"]
DimensionName = Literal[
    "service", "ip", "net", "asn", "country", "api_key", "account", "route", "user_agent", "fingerprint", "email_domain"
]
MeasureName = Literal[
    "requests", "non_asset", "client_errors", "auth_failures", "server_errors", "own_denials", "cancelled", "duration_ms",
    "bytes", "tokens_in", "tokens_out", "login_failures", "max_tokens", "cost_micro", "evidence", "registrations", "busy_ms",
    "listed", "wasted_tokens",
]  # fmt: skip
ItemName = Literal["net", "country", "failed_route", "user_agent", "account"]

GITHUB_KEYS = "https://api.github.com/meta/public_keys/secret_scanning"
LIMIT_MAX = 2**53
"""Larger limits would not survive a JSON reader that uses doubles."""

Count = Annotated[int, msgspec.Meta(ge=1, le=LIMIT_MAX)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the configuration."""


_Named = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Host = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]


class Input(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How bytes become events."""

    format: Literal["auto", "combined", "json"] = "auto"
    """``auto`` decides for every record by its first byte; the others refuse what is not theirs."""
    proxy_depth: Annotated[int, msgspec.Meta(ge=0, le=16)] = 0
    """How many trusted proxies stand before the service. 0: the connection's address counts. 1: the last entry of
    X-Forwarded-For, 2: the last but one. Entries further left are the client's own words and never used."""
    fields: dict[str, str] = {}
    """Extra JSON paths (dotted) to fields of ours: ``{"req.client" = "client_ip"}``."""
    record_bytes_max: Annotated[int, msgspec.Meta(ge=256, le=16 << 20)] = 1 << 20
    """A longer record is poison."""
    service: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "default"
    """The service that events without a host belong to."""
    services: Annotated[dict[_Named, Annotated[tuple[_Host, ...], msgspec.Meta(min_length=1, max_length=64)]],
                        msgspec.Meta(max_length=64)] = {}  # fmt: skip
    """Hosts that are one service: ``{example = ["www.example.com", "api.example.com"]}``, written as events name them. They are
    counted and learned together, and a registration on one host is linked to what its account does on another. Any other host
    is a service of its own. Read at start; a replay needs the same."""
    geo: Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1)], ...], msgspec.Meta(max_length=8)] = ()
    """Files in MaxMind's format (.mmdb) that say the country or the autonomous system of an address, for events that do not
    say them. Read at start; a replay needs the same ones."""


class Time(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Event time."""

    lateness_s: Annotated[int, msgspec.Meta(ge=0, le=600)] = 10
    """An event older than the newest of its source partition by more than this is late: counted, and left out."""
    ahead_s: Annotated[int, msgspec.Meta(ge=0, le=600)] = 5
    """A time further ahead of the record's own (Kafka) or the file's modification time is replaced by it."""
    skew_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 30
    """How far one source partition may run ahead of the slowest."""


class Allow(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An operator's exception."""

    dimension: Literal["ip", "net", "api_key", "account"]
    """Whom it excepts."""
    value: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    """An address or prefix for ``ip`` and ``net``, else the key's fingerprint or the account."""
    owner: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    """Who answers for it."""
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    """Why, for whoever reads it in a year."""
    expires_tick: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """Unix seconds of event time from which it no longer holds; none: until removed."""


DEFAULT_ALLOWLIST_CORE = (
    "127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7",
    "100.64.0.0/10", "0.0.0.0/32", "::/128",
)  # fmt: skip


class Policy(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What turns findings into mitigations."""

    drill: bool = False
    """For workers that read a drill (docs/drills.md): every mitigation is marked so, and no edge enforces it unless told
    (``floodwall edge --drills``). No record can ask for the mark: else an attacker would."""
    allowlist_core: tuple[str, ...] = DEFAULT_ALLOWLIST_CORE
    """Prefixes never mitigated, whatever else is configured: add your proxies, CDN ranges and health checks."""
    allow: tuple[Allow, ...] = ()
    """Operators' exceptions."""
    shared_networks: tuple[str, ...] = ()
    """Prefixes of many people behind one address (carrier NAT, VPN, offices): throttled at most, never blocked."""
    ttl_s: Annotated[int, msgspec.Meta(ge=1, le=86400)] = 300
    """How long a first mitigation holds after the window that it is about; more than ``renew_s`` and the lateness."""
    ttl_s_max: Annotated[int, msgspec.Meta(ge=1, le=604800)] = 3600
    """The longest that escalation makes of it."""
    escalation_factor: Annotated[int, msgspec.Meta(ge=1, le=100)] = 4
    """The TTL of each return within ``escalation_memory_s`` is longer by this factor, up to ``ttl_s_max``."""
    escalation_memory_s: Annotated[int, msgspec.Meta(ge=0, le=2592000)] = 86400
    """Whoever comes back later than this after a mitigation ended comes for the first time."""
    block_from_level: Annotated[int, msgspec.Meta(ge=0, le=100)] = 1
    """A throttled address that returns this many times is blocked (never a shared one). 0: at once."""
    renew_s: Annotated[int, msgspec.Meta(ge=10, le=3600)] = 60
    """One mitigation per target and detector in each cell of this length."""
    active_max: Count = 200_000
    """Blast radius: mitigations active at once over the service; more are held."""
    new_per_minute_max: Count = 100_000
    """Blast radius: new mitigations in one minute over the service; more are held."""
    share_max: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """Blast radius: the share of a dimension's active keys that may be mitigated at once …"""
    share_from_keys: Count = 50
    """… once the judge partition has seen this many of the dimension in its windows."""
    corroborate_s: Annotated[int, msgspec.Meta(ge=0, le=86400)] = 300
    """What detectors say of one target within so long counts together. 0: each counts for itself."""
    raise_address_at: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    """A notice or challenge becomes a throttle when all detectors together are so sure of an address …"""
    raise_customer_at: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.9
    """… or of anything else: a network, a key, an account. Shared networks are never raised."""
    shorten_at: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.98
    """An address that several detectors are so sure of is treated as if it had come back: blocked, not throttled."""
    feedback_allow_s: Annotated[int, msgspec.Meta(ge=0, le=2592000)] = 86400
    """After ``floodwall feedback ID --false-positive`` the same detector does not get the same target mitigated for so long."""
    feedback_per_day_max: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 100
    """Records of feedback that each who gives them has in a day; more are refused, and ignored."""


class Engine(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Capacities. Each is fixed at start, and where one bit the evidence says so."""

    judge_partitions: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 16
    """Into how many parts keys are divided; at least four for each judge there will ever be. Part of topics' names."""
    chunk_events: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 20_000
    """Events in one flush of observe."""
    keys_max: Annotated[int, msgspec.Meta(ge=1024, le=1 << 26)] = 1 << 19
    """Keys the judges hold together, over all dimensions."""
    rows_max: Annotated[int, msgspec.Meta(ge=1024, le=1 << 28)] = 1 << 20
    """Ticks of keys (one row each) that the judges hold together."""
    seed: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    """The secret that keys hashes and fingerprints. None: FLOODWALL_SEED, else one drawn at start."""


class Kafka(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to reach the brokers, and how the workers behave there."""

    brokers: Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=256)], ...], msgspec.Meta(min_length=1)] = (
        "127.0.0.1:9092",
    )
    """``host:port``, as many as are known."""
    topics: Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=249)], ...], msgspec.Meta(min_length=1)] = RAW
    """Raw topics that the observers read."""
    topic_prefix: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
    """Before the name of every topic of Floodwall's own, so that several deployments can share a cluster. The raw topics are
    named in ``topics`` as they are."""
    development: bool = False
    """For a machine of your own: allows plaintext, and no proof of who we are. Without it both are refused."""
    tls: bool | None = None
    """None: TLS; in development only if ``ca_file`` or ``certificate_file`` is given. False needs ``development``."""
    ca_file: str | None = None
    """PEM file of the authority that signed the brokers' certificates; none: the system's."""
    certificate_file: str | None = None
    """PEM file of the client's own certificate, for mutual TLS, with its key in ``key_file``."""
    key_file: str | None = None
    """PEM file of the key of ``certificate_file``."""
    sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] | None = None
    """How to log in; none: no password (TLS certificates, or ``development``)."""
    username: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    """The password comes from the environment: FLOODWALL_KAFKA_PASSWORD."""
    group_prefix: Annotated[str, msgspec.Meta(min_length=1, max_length=100)] = "floodwall"
    """Consumer groups are called ``…-observers`` and ``…-judges``; transactional ids begin with it too."""
    flush_ms: Annotated[int, msgspec.Meta(ge=50, le=5000)] = 100
    """How often an observer ships tallies. Each flush of a source partition is a transaction."""
    session_ms: Annotated[int, msgspec.Meta(ge=2000, le=60000)] = 6000
    """A worker that is silent for longer has lost its partitions."""
    transaction_ms: Annotated[int, msgspec.Meta(ge=1000, le=60000)] = 10000
    """An unfinished transaction of a dead worker is given up by the brokers after this."""
    rows_max: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)] = 20_000
    """Rows of one second that one flush of a source partition may ship, heaviest first; the rest is counted as truncated."""
    dead_letters_max: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 10_000
    """Dead letters a worker may write in a minute; past that they are only counted."""
    state_ms: Annotated[int, msgspec.Meta(ge=100, le=60000)] = 2000
    """How often a judge writes down where it stands."""
    health_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """Health and metrics on 127.0.0.1; 0: any free port, which the worker's first log line names."""


class Intake(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What others report to us (`floodwall intake`)."""

    forms: Annotated[tuple[Literal["sha256", "sha256_prefixed", "keyed"], ...], msgspec.Meta(min_length=1, max_length=3)] = (
        "sha256", "keyed",
    )  # fmt: skip
    """How fingerprints are made of leaked keys: as traffic names its keys. ``sha256``: LiteLLM's own hash; ``sha256_prefixed``:
    the same after ``sha256:``; ``keyed``: ours, of keys that come in the clear (needs the workers' ``engine.seed``). A key is
    published in each."""
    public_keys: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] = GITHUB_KEYS
    """The keys that GitHub signs with: a file, or an https address, with the document of GitHub's meta endpoint. Read again
    when a post names one that is not known, and once a day."""
    refresh_s: Annotated[int, msgspec.Meta(ge=1, le=86400)] = 300
    """They are read at most once in so long: GitHub answers an address 60 times an hour, and anybody can name a key."""
    known_keys: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)] | None = None
    """A file of the keys that there are: the SHA-256 of each in hexadecimal, a line, and behind it the gateway's own id where
    traffic names keys by that, which then is published too. With it GitHub is told which reports are of no key of ours."""
    body_bytes_max: Annotated[int, msgspec.Meta(ge=1024, le=64 << 20)] = 4 << 20
    """A longer post is refused."""
    matches_max: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 20_000
    """A post with more leaked keys is refused."""
    posts_at_once: Annotated[int, msgspec.Meta(ge=1, le=64)] = 16
    """More wait for nothing: they are told to come back (503). Each holds one body in memory."""
    posts_per_minute_max: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 600
    """More are told to come back (429)."""


class TrustedKey(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A public key that edges believe."""

    key: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9+/]{43}=$")]
    """As ``floodwall keys make`` prints it."""
    owner: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    """Whose it is, for people."""
    speaks_for: Literal["detectors", "operators", "both"] = "detectors"
    """Whose records it may sign. An operator's record wins over every detector's, so judges need not be able to write one."""


class Signing(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who signs mitigations, and whose signatures edges believe. Without it nothing is signed and everything believed."""

    private_key_file: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    """PEM file of the key that judges, and operators' commands, sign with; only its owner may be able to read it."""
    public_keys: Annotated[tuple[TrustedKey, ...], msgspec.Meta(max_length=64)] = ()
    """If there are any, edges refuse every record that none of these has signed. A key is exchanged by overlap: give edges
    the new one beside the old, then let judges sign with it, and remove the old one when its last mitigation has ended."""


class Config(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration."""

    profile: Profile = "web"
    """``web``: browsers; assets weigh nothing. ``api``: servers; what authenticates is no evidence against addresses."""
    input: Input = Input()
    time: Time = Time()
    detectors: dict[str, dict[str, Any]] = {}
    """A section for each detector, ``[detectors.NAME]``; each checks its own (`detectors.registry.settings`)."""
    playbooks: dict[str, dict[str, Any]] = {}
    """A section for each playbook, ``[playbooks.NAME]``: what ships is changed by it (`schemas.playbooks`)."""
    policy: Policy = Policy()
    engine: Engine = Engine()
    kafka: Kafka = Kafka()
    intake: Intake = Intake()
    signing: Signing = Signing()
    version: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Of this file, which changes on the config topic count on from; part of every id through the detector's section."""


def _refuse_not_finite(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_not_finite(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_not_finite(inner, f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"expected a finite number at `{path}`, got {value}")


def parse_prefixes(values: tuple[str, ...], path: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Parse address prefixes; a bad one is a `ConfigError` that names its path."""
    networks = []
    for index, value in enumerate(values):
        try:
            networks.append(ipaddress.ip_network(value))
        except ValueError as error:
            raise ConfigError(f"expected an address prefix at `$.{path}[{index}]`, got {value!r}: {error}") from None
    return networks


def parse_config(document: dict[str, Any], where: str = "config") -> Config:
    """Validate a plain document.

    Raises:
        ConfigError: with ``where``, the path, the bound and what came.
    """
    try:
        _refuse_not_finite(document, "$")
        config = msgspec.convert(document, Config)
        parse_prefixes(config.policy.allowlist_core, "policy.allowlist_core")
        parse_prefixes(config.policy.shared_networks, "policy.shared_networks")
        for index, allow in enumerate(config.policy.allow):
            if allow.dimension in ("ip", "net"):
                parse_prefixes((allow.value,), f"policy.allow[{index}].value")
        _check_together(config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {explain(str(error), document)}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return config


def explain(text: str, document: dict[str, Any], above: str = "$") -> str:
    """msgspec's message, which ends in the path, and what stands there, which it leaves out.

    Args:
        above: the path of ``document``.
    """
    message, _, path = text.partition(" - at `$")
    found: Any = document
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        try:
            found = found[name] if name else found[int(index)]
        except (KeyError, IndexError, TypeError):
            return text.replace("`$", f"`{above}")
    if not path or isinstance(found, dict) or ".engine.seed" in f"{above}{path}":  # a secret is not printed
        return text.replace("`$", f"`{above}")
    return f"{message[:1].lower()}{message[1:]} at `{above}{path}, got {found!r:.80}"


def _check_together(config: Config) -> None:
    owner: dict[str, str] = {}
    for service, hosts in config.input.services.items():
        for host in hosts:
            if owner.setdefault(host, service) != service:
                raise ConfigError(f"expected each host once in `$.input.services`, got {host!r} in two of them")
    if config.time.ahead_s > config.time.lateness_s:
        raise ConfigError(
            f"expected `$.time.ahead_s` <= `$.time.lateness_s` ({config.time.lateness_s}), got {config.time.ahead_s}"
        )
    shortest = config.policy.renew_s + config.time.lateness_s
    if config.policy.ttl_s <= shortest:
        raise ConfigError(f"expected `$.policy.ttl_s` > renew_s + lateness_s ({shortest}), got {config.policy.ttl_s}")
    if config.policy.ttl_s_max < config.policy.ttl_s:
        raise ConfigError(f"expected `$.policy.ttl_s_max` >= ttl_s ({config.policy.ttl_s}), got {config.policy.ttl_s_max}")


class Loaded(NamedTuple):
    """A configuration, and what of it was said by a file."""

    config: Config
    file: Path | None
    said: dict[str, Any]

    def says(self, section: str, name: str) -> bool:
        """Whether the file does, be it what would hold without it."""
        return name in self.said.get(section, {})


def load_config(path: Path | None) -> Config:
    """As `load_file`, for whom it does not matter what was said and what is a default."""
    return load_file(path).config


def load_file(path: Path | None) -> Loaded:
    """Read a TOML file; without one, the defaults.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or a value is refused.
    """
    if path is None:
        return Loaded(Config(), None, {})
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"expected a readable TOML file at {path}, got: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        came = f"byte {error.object[error.start]:#04x} at {error.start}"
        raise ConfigError(f"expected UTF-8 text in {path}, got {came}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"expected TOML in {path}, got: {error}") from None
    return Loaded(parse_config(document, str(path)), path, document)


def dimension_of(name: str) -> Dimension:
    """The dimension of a configured name."""
    return Dimension[name.upper()]


def item_of(name: str) -> Item:
    """The item of a configured name."""
    return Item[name.upper()]


def measure_of(name: str) -> Measure:
    """The measure of a configured name."""
    return Measure[name.upper()]
