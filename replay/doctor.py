"""doctor: what Floodwall sees in a source, and what it is blind for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detectors.registry import plan_windows
from engine.clock import Clock
from engine.seeds import make_seeds
from replay.sources import bound_of, make_buffer, open_source
from schemas.columns import U8
from schemas.config import Config
from schemas.decode import ADDRESS_SOURCE_NAMES, FIELD_NAMES, Decoder
from schemas.fields import Poison
from schemas.forms import form_of

_NEEDS = {
    "ip": "an address", "net": "an address", "asn": "asn", "country": "country", "api_key": "api_key",
    "account": "account", "route": "path", "user_agent": "user_agent", "fingerprint": "fingerprint",
    "email_domain": "email_domain", "service": "",
}  # fmt: skip
_MEASURE_NEEDS = {
    "client_errors": "status", "auth_failures": "status", "server_errors": "status", "own_denials": "status",
    "cancelled": "status", "duration_ms": "duration_ms", "bytes": "bytes", "tokens_in": "tokens_in",
    "tokens_out": "tokens_out", "tokens_cached": "tokens_cached", "max_tokens": "max_tokens", "cost_micro": "cost_micro",
    "busy_ms": "duration_ms", "listed": "user_agent",
    "wasted_tokens": "tokens_in", "failed_route": "status", "net": "an address",
}  # fmt: skip


@dataclass(slots=True)
class Diagnosis:
    """What a sample of one source holds."""

    source: str
    records: int
    events: int
    empty: int
    formats: dict[str, int]
    """Events of each form, as docs/formats.md calls it."""
    poison: dict[str, int]
    """Records that cannot be read, by reason."""
    fields: dict[str, float]
    """Share of the events that carry each field."""
    addresses: dict[str, float]
    """Share of the events whose address came from there."""
    blind: list[str]
    """Rules that can never fire on this source, each with the reason."""
    advice: list[str]
    broke_off: str | None = None
    """Why the source ended before its end, if it did."""


def examine(config: Config, name: str, clock: Clock, *, sample: int = 1000) -> Diagnosis:
    """Decode the first ``sample`` records of a source.

    Raises:
        SourceError: it cannot be opened.
    """
    line_max = config.input.record_bytes_max
    source = open_source(name, start=0, line_max=line_max)
    buffer = make_buffer(line_max)
    decoder = Decoder(config.input, key_seed=make_seeds(config).key, ahead_ms=config.time.ahead_s * 1000, events_max=1)
    found = Diagnosis(name, 0, 0, 0, {}, {}, {}, {}, [], [])
    while not source.ended and found.records < sample:
        length = source.read(buffer)
        if source.refusal is not None:
            reason = source.refusal.reason.name.lower()
            found.records += 1
            found.poison[reason] = found.poison.get(reason, 0) + 1
        at = 0
        while at < length and found.records < sample:
            at = _decode_one(decoder, buffer, length, at, bound_of(name, clock.now_ms()), found)
    found.broke_off = source.error
    _conclude(config, found)
    return found


def examine_lines(config: Config, name: str, data: bytes, bound_ms: int, *, sample: int = 1000) -> Diagnosis:
    """The same for bytes at hand, one record a line."""
    buffer = make_buffer(config.input.record_bytes_max, len(data))
    buffer[: len(data)] = np.frombuffer(data, np.uint8)
    decoder = Decoder(config.input, key_seed=make_seeds(config).key, ahead_ms=config.time.ahead_s * 1000, events_max=1)
    found = Diagnosis(name, 0, 0, 0, {}, {}, {}, {}, [], [])
    at = 0
    while at < len(data) and found.records < sample:
        at = _decode_one(decoder, buffer, len(data), at, bound_ms, found)
    _conclude(config, found)
    return found


def _decode_one(decoder: Decoder, buffer: U8, length: int, at: int, bound_ms: int, found: Diagnosis) -> int:
    first = at
    following = decoder.decode_lines(buffer, length, at, bound_ms=bound_ms, events_max=1)
    events = decoder.columns.n
    found.records += decoder.records
    found.events += events
    found.empty += decoder.empty
    for index in range(decoder.poison):
        reason = Poison(int(decoder.poison_reason[index])).name.lower()
        found.poison[reason] = found.poison.get(reason, 0) + 1
    if events:
        form = form_of(buffer[first:following].tobytes())
        found.formats[form] = found.formats.get(form, 0) + events
        for names, counts, into in (
            (FIELD_NAMES, decoder.field_seen, found.fields), (ADDRESS_SOURCE_NAMES, decoder.address_source, found.addresses)
        ):  # fmt: skip
            for index, count in enumerate(counts.tolist()):
                if count:
                    into[names[index]] = into.get(names[index], 0) + count
    return following


def _conclude(config: Config, found: Diagnosis) -> None:
    events = max(found.events, 1)
    found.fields = {name: round(count / events, 4) for name, count in found.fields.items()}
    found.addresses = {name: round(count / events, 4) for name, count in found.addresses.items()}
    has = {name for name, share in found.fields.items() if share > 0}
    if sum(share for name, share in found.addresses.items() if name != "none") > 0:
        has.add("an address")
    for rules in plan_windows(config).rules:
        for rule in rules:
            whom = rule.dimension.label
            needs = (_NEEDS[whom], _MEASURE_NEEDS.get(rule.value.label, ""))
            missing = [need for need in needs if need and need not in has]
            if found.events and missing:
                text = f"{rule.detector.name} of {rule.measure} per {whom} in {rule.window_s} s: no record carries {missing[0]}"
                found.blind.append(text)
    if found.broke_off is not None:
        found.advice.append(f"The file breaks off: {found.broke_off}.")
    if not found.records:
        found.advice.append("There is nothing in it.")
    elif not found.events:
        found.advice.append("No record could be read. See docs/formats.md, or map fields with input.fields.")
    elif config.input.proxy_depth == 0 and found.addresses.get("connection", 0) > 0.99 and "an address" in has:
        found.advice.append(
            "Addresses are the connection's. If a proxy stands before this service, every client looks like the proxy: "
            "say how many there are with --proxy-depth."
        )
    if found.events and found.addresses.get("none", 0) > 0.01 and config.input.proxy_depth == 0:
        found.advice.append(
            f"{found.addresses['none']:.0%} of the events have no address (a host name, say): rules by address and network "
            "do not see them. Log addresses (apache: HostnameLookups Off)."
        )
    if config.input.proxy_depth > 0 and found.addresses.get("x_forwarded_for", 0) < 0.5 and found.events:
        found.advice.append(
            f"--proxy-depth {config.input.proxy_depth} was given, and X-Forwarded-For decided the address of fewer than half "
            "of the records: does the log carry that header?"
        )
