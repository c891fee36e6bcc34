"""Seeded, labelled traffic as bytes: what an access log would hold, and who in it attacks.

The same arguments give the same bytes. Honest clients come from 198.51.100.0/24, 192.0.2.0/24 and 2001:db8::/32 and stay
well under every default limit on addresses and networks; attackers come from 203.0.113.0/24. Only `spoofed_lines` needs
more addresses than the documentation ranges have as IPv4: its sources are /64 networks of 2001:db8::/32, the
documentation range of IPv6.

A default limit on a *route* (20,000 in 10 s, notify only) is not avoided: traffic of a million events a second crosses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from drills.requests import AGENTS_API, AGENTS_BROWSER, AGENTS_HOSTILE, POOL_SIZE, Request, request_pool

I64 = npt.NDArray[np.int64]
Objects = npt.NDArray[Any]
Kind = Literal["flood", "burner", "stuffing"]

BLOCK_LINES = 1 << 17
"""Lines put together at a time: 131,072 × 5 references are 5 MB."""
CLIENT_PER_SECOND_MAX = 4.0
"""No honest client is busier on average: 240 in 60 s where 900 are allowed, and a second with 100 does not happen."""
NETWORK_PER_SECOND_MAX = 120.0
"""Nor an honest /24 or /48: 1,200 in 10 s where 3,000 are allowed."""
FLOOD_PER_SECOND = 180.0
BURNER_PER_SECOND = 17.0
"""1,020 in 60 s where 900 are allowed, and far from every other limit."""
STUFFING_PER_SECOND = 6.0
BURNER_SPAN_S = 70.0
"""A shorter attack by a slow burner would never be over its limit."""
ATTACKERS_MAX = 250
PROXIES = ("192.0.2.250", "192.0.2.251")
"""The trusted proxies of `main_lines`; no client has their addresses."""
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Attack:
    """One attacker: from ``start_s`` to ``stop_s`` after the traffic's first second, ``per_second`` evenly spread."""

    kind: Kind
    address: str
    start_s: float
    stop_s: float
    per_second: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """Log lines and what is true of them."""

    data: bytes
    """Newline-terminated lines in the order in which the requests completed."""
    times_ms: I64
    """i64[events]: when each completed; lines with a resolution of seconds show it rounded down."""
    clients: tuple[str, ...]
    """The honest addresses."""
    labels: dict[str, Kind]
    """The attackers' addresses and what each does; each crosses its default limit."""
    attacks: tuple[Attack, ...]

    @property
    def events(self) -> int:
        """How many lines there are."""
        return len(self.times_ms)

    def lines(self) -> list[bytes]:
        """The lines, each with its newline."""
        return self.data.splitlines(keepends=True)


@dataclass(slots=True)
class _Plan:
    """Who does what when, before it is written down in one format or another. Actors are clients, then attackers."""

    random: np.random.Generator
    start_s: int
    times_ms: I64
    actor: npt.NDArray[np.int32]
    request: npt.NDArray[np.int32]  # index into `requests`
    addresses: list[str]
    agents: list[str]
    requests: list[Request]
    clients: int
    attacks: tuple[Attack, ...]

    def traffic(self, data: bytes) -> Traffic:
        """The finished product."""
        return Traffic(
            data,
            self.times_ms,
            tuple(self.addresses[: self.clients]),
            {attack.address: attack.kind for attack in self.attacks},
            self.attacks,
        )


def combined_lines(
    *,
    seed: int,
    events: int,
    start_s: int = 1_795_000_000,
    events_per_second: float = 350.0,
    clients: int | None = None,
    attackers: int = 0,
    attacks: tuple[Attack, ...] | None = None,
) -> Traffic:
    """Lines of nginx' and apache's ``combined`` format.

    Args:
        seed: the same seed, the same bytes.
        events: lines altogether.
        start_s: Unix seconds of the first.
        events_per_second: of all clients and attackers together, on average.
        clients: honest clients; none: as many as the rate needs.
        attackers: how many attack in the middle half of the time, as flood, stuffing and (where there are 70 s for it)
            slow burner in turn.
        attacks: instead of ``attackers``, exactly these.

    Raises:
        ValueError: the numbers do not fit together; the message says which.
    """
    plan = _plan(seed, events, start_s, events_per_second, clients, attackers, attacks)
    requests = [f'{r.method} {r.path} HTTP/1.1" {r.status} {r.size} "{r.referrer}" "' for r in plan.requests]
    columns = [
        (_pool([f"{address} - - [" for address in plan.addresses]), plan.actor),
        (_clock_pool(plan), plan.times_ms // 1000 - plan.start_s),
        (_pool(requests), plan.request),
        (_pool([f'{agent}"\n' for agent in plan.agents]), plan.actor),
    ]
    return plan.traffic(b"".join(_rendered(columns, len(plan.times_ms))))


def main_lines(
    *,
    seed: int,
    events: int,
    start_s: int = 1_795_000_000,
    events_per_second: float = 350.0,
    clients: int | None = None,
    attackers: int = 0,
    attacks: tuple[Attack, ...] | None = None,
) -> Traffic:
    """nginx' ``main`` format behind one trusted proxy (proxy depth 1): X-Forwarded-For stands last.

    Every eighth request brings a forged entry of its own in front; an attacker forges the address of an honest client.
    Arguments and errors as `combined_lines`.
    """
    plan = _plan(seed, events, start_s, events_per_second, clients, attackers, attacks)
    requests = [f'{r.method} {r.path} HTTP/1.1" {r.status} {r.size} "{r.referrer}" "' for r in plan.requests]
    forged = plan.random.random(events) < 0.125
    victims = plan.random.integers(0, plan.clients, len(plan.addresses))
    forwarded = [f'" "{address}"\n' for address in plan.addresses]
    for index, address in enumerate(plan.addresses):
        claim = "2001:db8:ffff::1" if index < plan.clients else plan.addresses[victims[index]]
        forwarded.append(f'" "{claim}, {address}"\n')
    columns = [
        (_pool([f"{proxy} - - [" for proxy in PROXIES]), plan.random.integers(0, len(PROXIES), events)),
        (_clock_pool(plan), plan.times_ms // 1000 - plan.start_s),
        (_pool(requests), plan.request),
        (_pool(plan.agents), plan.actor),
        (_pool(forwarded), plan.actor + forged * len(plan.addresses)),
    ]
    return plan.traffic(b"".join(_rendered(columns, events)))


def ndjson_lines(
    *,
    seed: int,
    events: int,
    start_s: int = 1_795_000_000,
    events_per_second: float = 350.0,
    clients: int | None = None,
    attackers: int = 0,
    attacks: tuple[Attack, ...] | None = None,
) -> Traffic:
    """An nginx ``log_format … escape=json``: one object a line, about 250 bytes, milliseconds, the key's hash, the account.

    Attackers hold no key, so both fields are empty for them. Arguments and errors as `combined_lines`.
    """
    plan = _plan(seed, events, start_s, events_per_second, clients, attackers, attacks)
    seconds = range(int(plan.times_ms[-1]) // 1000 - plan.start_s + 1)
    moments = [datetime.fromtimestamp(plan.start_s + second, UTC) for second in seconds]
    requests = [
        f'"method":"{r.method}","uri":"{r.path}","status":{r.status},"bytes":{r.size},'
        f'"request_time":{r.duration_ms / 1000:.3f},"user_agent":"'
        for r in plan.requests
    ]
    keys = plan.random.integers(0, 1 << 62, len(plan.addresses)).tolist()
    who = []
    for index, agent in enumerate(plan.agents):
        honest = index < plan.clients
        key, account = (f"sha256:{keys[index]:016x}", f"acct_{index // 2:05d}") if honest else ("", "")
        who.append(f'{agent}","api_key_hash":"{key}","account":"{account}"}}\n')
    columns = [
        (_pool([f'{{"time":"{moment:%Y-%m-%dT%H:%M:%S}' for moment in moments]), plan.times_ms // 1000 - plan.start_s),
        (_pool([f'.{ms:03d}+00:00","remote_addr":"' for ms in range(1000)]), plan.times_ms % 1000),
        (_pool([f'{address}","host":"api.example.com",' for address in plan.addresses]), plan.actor),
        (_pool(requests), plan.request),
        (_pool(who), plan.actor),
    ]
    return plan.traffic(b"".join(_rendered(columns, events)))


def spoofed_lines(
    *,
    seed: int,
    sources: int,
    attacker: str = "203.0.113.66",
    start_s: int = 1_795_000_000,
    sources_per_second: int = 100_000,
    attacker_per_second: int = 250,
) -> Iterator[bytes]:
    """``sources`` distinct source networks with one request each, around one real attacker, as combined lines.

    Yields blocks of whole lines (about 12 MB); memory does not grow with ``sources``. Each source is another /64 of
    2001:db8::/32, in an order that jumps over all 65,536 /48s. The attacker sends ``attacker_per_second`` throughout.

    Raises:
        ValueError: more than 2^32 sources are asked for, or none.
    """
    if not 1 <= sources <= 1 << 32:
        raise ValueError(f"expected 1 to 2^32 sources, got {sources}")
    random = np.random.default_rng([seed, 5])
    odd, shift = int(random.integers(1 << 20, 1 << 31)) * 2 + 1, int(random.integers(0, 1 << 32))
    high = _pool([f"2001:db8:{value:x}:" for value in range(1 << 16)])
    low = _pool([f"{value:x}::1 - - [" for value in range(1 << 16)])
    pool = request_pool("web", random)
    requests = _pool([f'{r.method} {r.path} HTTP/1.1" {r.status} {r.size} "-" "{AGENTS_HOSTILE[0]}"\n' for r in pool])
    every = max(1, sources_per_second // attacker_per_second)  # one line of the attacker before each so many sources
    group = every + 1
    lines = sources + -(-sources // every)
    for first in range(0, lines, BLOCK_LINES):
        line = np.arange(first, min(first + BLOCK_LINES, lines), dtype=np.int64)
        by_attacker = line % group == 0
        source = line - line // group - 1  # lines of sources before this one
        value = (source * odd + shift) & 0xFFFFFFFF
        value ^= value >> 15  # a bijection, so that no two sources fall together
        out = np.empty((len(line), 4), object)
        out[:, 0] = high[value >> 16]
        out[:, 1] = low[value & 0xFFFF]
        out[by_attacker, 0] = attacker.encode()
        out[by_attacker, 1] = b" - - ["
        second = np.maximum(source, 0) // sources_per_second
        base = int(second[0])
        clock = _pool([_clock_text(start_s + base + offset) for offset in range(int(second[-1]) - base + 1)])
        out[:, 2] = clock[second - base]
        out[:, 3] = requests[random.integers(0, POOL_SIZE, len(line))]
        yield b"".join(out.ravel().tolist())


def _plan(
    seed: int,
    events: int,
    start_s: int,
    events_per_second: float,
    clients: int | None,
    attackers: int,
    attacks: tuple[Attack, ...] | None,
) -> _Plan:
    if events < 1 or events_per_second <= 0:
        raise ValueError(f"expected events >= 1 and events_per_second > 0, got {events} and {events_per_second}")
    random = np.random.default_rng([seed, 1])
    span_s = events / events_per_second
    if attacks is None:
        attacks = _usual_attacks(attackers, span_s)
    times, actors, kinds = _attack_events(attacks, span_s)
    honest = events - len(times)
    if honest < 1:
        raise ValueError(f"expected attacks of fewer than {events} events, got {len(times)}; ask for more events")
    per_second = honest / span_s
    if clients is None:
        clients = max(50, round(per_second / CLIENT_PER_SECOND_MAX * 4))
    shares = _activity(clients, per_second)
    addresses = _honest_addresses(random, shares * per_second)
    browsers = random.random(clients) < 0.4
    edges = np.cumsum(shares)
    who = np.minimum(np.searchsorted(edges, random.random(honest) * edges[-1]), clients - 1).astype(np.int32)
    pools = {kind: request_pool(kind, random) for kind in ("api", "web", "flood", "stuffing", "burner")}
    pool_of = {kind: index for index, kind in enumerate(pools)}
    kind_of_attack = np.array([pool_of[attack.kind] for attack in attacks] or [0])
    actor = np.concatenate([who, clients + actors]).astype(np.int32)
    kind = np.concatenate([np.where(browsers[who], pool_of["web"], pool_of["api"]), kind_of_attack[kinds]])
    request = (kind * POOL_SIZE + random.integers(0, POOL_SIZE, events)).astype(np.int32)
    times_ms = np.concatenate([random.integers(0, max(1, int(span_s * 1000)), honest), times])
    order = np.argsort(times_ms, kind="stable")
    agents = [(AGENTS_BROWSER if browsers[i] else AGENTS_API)[i % 2 if browsers[i] else i % 5] for i in range(clients)]
    agents += [AGENTS_HOSTILE[i % len(AGENTS_HOSTILE)] for i in range(len(attacks))]
    return _Plan(
        random, start_s, times_ms[order] + start_s * 1000, actor[order], request[order],
        addresses + [attack.address for attack in attacks], agents,
        [request for pool in pools.values() for request in pool], clients, attacks,
    )  # fmt: skip


def _usual_attacks(attackers: int, span_s: float) -> tuple[Attack, ...]:
    """Attackers over the middle half of the time (burners over at least 70 s), kinds in turn."""
    if not 0 <= attackers <= ATTACKERS_MAX:
        raise ValueError(f"expected 0 to {ATTACKERS_MAX} attackers, got {attackers}")
    length = span_s / 2
    kinds: tuple[Kind, ...] = ("flood", "stuffing", "burner") if span_s >= BURNER_SPAN_S + 4 else ("flood", "stuffing")
    attacks = []
    for index in range(attackers):
        kind = kinds[index % len(kinds)]
        window = max(length, BURNER_SPAN_S + 2) if kind == "burner" else length
        # In less than a second the same number of requests comes faster: each attacker is to cross its limit.
        rate = {
            "flood": max(FLOOD_PER_SECOND, 180 / window),
            "stuffing": max(STUFFING_PER_SECOND, 150 / window),
            "burner": BURNER_PER_SECOND,
        }[kind]
        start = (span_s - window) / 2
        attacks.append(Attack(kind, f"203.0.113.{index + 1}", start, start + window, rate))
    return tuple(attacks)


def _attack_events(attacks: tuple[Attack, ...], span_s: float) -> tuple[I64, I64, I64]:
    """Times (milliseconds from the start), attackers and attacks (both indices) of every hostile event."""
    times: list[I64] = [np.zeros(0, np.int64)]
    for attack in attacks:
        stop = min(attack.stop_s, span_s)
        if not 0 <= attack.start_s < stop:
            raise ValueError(f"expected an attack within the {span_s:.1f} s of the traffic, got {attack}")
        count = max(1, int((stop - attack.start_s) * attack.per_second))
        times.append((attack.start_s * 1000 + np.arange(count) * 1000 / attack.per_second).astype(np.int64))
    index = np.repeat(np.arange(len(attacks), dtype=np.int64), [len(part) for part in times[1:]])
    return np.concatenate(times), index, index


def _activity(clients: int, per_second: float) -> npt.NDArray[np.float64]:
    """Shares of the clients: Zipf with exponent 1, cut where a client would be busier than the bound, and the rest spread."""
    top = CLIENT_PER_SECOND_MAX / per_second
    if top * clients < 1.25:
        need = int(np.ceil(1.25 * per_second / CLIENT_PER_SECOND_MAX))
        raise ValueError(f"expected at least {need} clients for {per_second:.0f} honest events a second, got {clients}")
    shares = 1 / np.arange(1, clients + 1)
    shares /= shares.sum()
    for _ in range(64):
        over = shares > top
        if not over.any():
            break
        rest = 1 - top * over.sum()
        shares[over] = top
        shares[~over] *= rest / shares[~over].sum()
    return np.minimum(shares, top)


def _honest_addresses(random: np.random.Generator, per_second: npt.NDArray[np.float64]) -> list[str]:
    """An address for every client: IPv4 while its /24 has room and rate to spare, else a /64 of its own."""
    addresses = []
    free = [[f"198.51.100.{host}" for host in range(254, 0, -1)], [f"192.0.2.{host}" for host in range(249, 0, -1)]]
    load = [0.0, 0.0]
    scatter = int(random.integers(0, 1 << 15)) * 2 + 1  # odd, so neighbours get /48s of their own
    pick = random.permutation(len(per_second)) % 3
    for index, rate in enumerate(per_second.tolist()):
        network = int(pick[index])
        if network < 2 and free[network] and load[network] + rate <= NETWORK_PER_SECOND_MAX:
            load[network] += rate
            addresses.append(free[network].pop())
        else:
            addresses.append(f"2001:db8:{index * scatter & 0xFFFF:x}:{index >> 16:x}::{index % 9 + 1:x}")
    return addresses


def _clock_text(second: int) -> bytes:
    moment = datetime.fromtimestamp(second, UTC)
    day = f"{moment.day:02d}/{_MONTHS[moment.month - 1]}/{moment.year}"
    return f'{day}:{moment:%H:%M:%S} +0000] "'.encode()


def _clock_pool(plan: _Plan) -> Objects:
    seconds = int(plan.times_ms[-1]) // 1000 - plan.start_s + 1
    return _pool([_clock_text(plan.start_s + second) for second in range(seconds)])


def _pool(texts: list[str] | list[bytes]) -> Objects:
    """Byte strings to choose from by index."""
    pool = np.empty(len(texts), object)
    pool[:] = [text.encode() if isinstance(text, str) else text for text in texts]
    return pool


def _rendered(columns: Sequence[tuple[Objects, Any]], events: int) -> Iterator[bytes]:
    """Lines as blocks of bytes: for every event one choice from each column's pool, one after the other."""
    for first in range(0, events, BLOCK_LINES):
        block = slice(first, min(first + BLOCK_LINES, events))
        out = np.empty((block.stop - first, len(columns)), object)
        for position, (pool, choice) in enumerate(columns):
            out[:, position] = pool[choice[block]]
        yield b"".join(out.ravel().tolist())
