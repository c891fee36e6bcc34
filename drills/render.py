"""Events as bytes: lines of our own schema (docs/events.md) for each stream, and the lines of an access log.

A line is put together from pieces: what belongs to an actor or a shape was written once, only times and amounts are
written for each event.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from drills.columns import (
    FLAG_AUTH_FAILED,
    FLAG_NEW_ACCOUNT,
    FLAG_NO_SUCH_KEY,
    I64,
    REGISTRATIONS,
    REQUESTS,
    STREAMS,
    Events,
)
from drills.service.actors import Actors, identity_json, new_account, new_key, request_number, unknown_key
from drills.service.shapes import MODELS, SHAPE_OF, SHAPES
from drills.service.words import DOMAINS, NAMES

Pieces = npt.NDArray[Any]
"""bytes[n]: one piece of each line."""
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SITE = "https://www.example.com/"
_STREAM_BITS = np.array([shape.streams for shape in SHAPES])
_HAS_TOKENS = np.array([shape.has_tokens for shape in SHAPES])
_ANONYMOUS = np.array([shape.anonymous for shape in SHAPES])
_MILLISECONDS = np.array([f".{ms:03d}Z".encode() for ms in range(1000)], object)


def in_stream(events: Events, stream: str) -> npt.NDArray[np.bool_]:
    """bool[n]: which events a stream holds."""
    found: npt.NDArray[np.bool_] = (_STREAM_BITS[events["shape"]] & STREAMS[stream]) > 0
    return found


def lines(events: Events, actors: Actors, stream: str, access_format: str = "combined") -> list[bytes]:
    """The lines of one stream for those of the events that it holds, each with its newline.

    Args:
        stream: one of `drills.columns.STREAMS`, or ``events``: every event once, as the stream that knows most of it has it.
        access_format: of ``access-log``: ``combined``, or ``json`` for our own schema.
    """
    if stream == "events":
        found = np.empty(len(events), object)
        kinds = _STREAM_BITS[events["shape"]]
        for bit, write in ((REQUESTS, request_lines), (REGISTRATIONS, registration_lines), (0, access_json_lines)):
            here = np.flatnonzero((kinds & (REQUESTS | REGISTRATIONS)) == bit)
            found[here] = _objects(write(events[here], actors))
        return list(found)
    chosen = events[in_stream(events, stream)]
    if stream == "access-log" and access_format == "combined":
        return combined_lines(chosen, actors)
    write_of: dict[str, Callable[[Events, Actors], list[bytes]]] = {
        "requests": request_lines, "registrations": registration_lines, "access-log": access_json_lines,
    }  # fmt: skip
    return write_of[stream](chosen, actors)


def request_lines(events: Events, actors: Actors) -> list[bytes]:
    """As the gateway says it: with key, account, tokens, cost and duration."""
    return _joined(
        [*_common(events, actors), _fixed(b"", len(events)), _identities(events, actors), _flags(events), _tokens(events)]
    )


def access_json_lines(events: Events, actors: Actors) -> list[bytes]:
    """As a proxy's JSON log says it: with key and account where it saw a key, without what only the gateway knows."""
    referrer = np.where(_ANONYMOUS[events["shape"]] & (events["shape"] != SHAPE_OF["scan"]), 1, 0)
    pool = _objects([b"", f',"referrer":"{_SITE}"'.encode()])
    return _joined([*_common(events, actors), pool[referrer], _identities(events, actors), _flags(events)])


def registration_lines(events: Events, actors: Actors) -> list[bytes]:
    """As the sign-up service says it."""
    said = [
        f',"event":"registration","email_domain":"{DOMAINS[domain]}","user_name":"{NAMES[name]}"'.encode()
        for domain, name in zip(events["domain"].tolist(), events["name"].tolist(), strict=True)
    ]
    made = np.flatnonzero(events["flags"] & FLAG_NEW_ACCOUNT)
    accounts = _fixed(b"", len(events))
    accounts[made] = _objects([identity_json("", new_account(number)) for number in events["number"][made].tolist()])
    return _joined([*_common(events, actors), _objects(said), accounts, _flags(events)])


def combined_lines(
    events: Events, actors: Actors, tails: list[bytes] | None = None, mimics: Pieces | None = None
) -> list[bytes]:
    """The combined format of nginx and apache.

    Args:
        tails, mimics: what a real log's lines hold behind the time, and for each event which of them it takes (-1: its own).
    """
    addresses, agents = actors.addresses_of(events["actor"]), actors.agents_of(events["actor"])
    seconds, which = np.unique(events["time_ms"] // 1000, return_inverse=True)
    clock = _objects([_clock(second) for second in seconds.tolist()])[which].tolist()
    numbers = zip(events["status"].tolist(), events["bytes"].tolist(), strict=True)
    methods = _methods_and_paths(events, b"%s %s")
    sites = np.where(_ANONYMOUS[events["shape"]] & (events["shape"] != SHAPE_OF["scan"]), _SITE, "-").tolist()
    found = []
    own = [-1] * len(events) if mimics is None else mimics.tolist()
    for index, (status, size) in enumerate(numbers):
        who = addresses[index].encode()
        if tails is not None and own[index] >= 0:
            found.append(b"%s - - %s %s\n" % (who, clock[index], tails[own[index]]))
            continue
        agent = agents[index].encode()
        request = b'"%s HTTP/1.1" %d %d "%s" "%s"' % (methods[index], status, size, sites[index].encode(), agent)
        found.append(b"%s - - %s %s\n" % (who, clock[index], request))
    return found


def _clock(second: int) -> bytes:
    moment = datetime.fromtimestamp(second, UTC)
    return f"[{moment.day:02d}/{_MONTHS[moment.month - 1]}/{moment.year}:{moment:%H:%M:%S} +0000]".encode()


def _common(events: Events, actors: Actors) -> list[Pieces]:
    """The fields that every kind of event has, from the opening brace to the user agent."""
    seconds, which = np.unique(events["time_ms"] // 1000, return_inverse=True)
    moments = [f'{{"time":"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}'.encode() for second in seconds.tolist()]
    who = _objects(actors.who_json_of(events["actor"]))
    ids = [request_number(number) for number in events["id"].tolist()]
    numbers = zip(ids, *(events[name].tolist() for name in ("status", "bytes", "duration_ms")), strict=True)
    amounts = [b'","request_id":"%015x","status":%d,"bytes":%d,"duration_ms":%d,' % row for row in numbers]
    return [
        _objects(moments)[which], _MILLISECONDS[events["time_ms"] % 1000], _objects(amounts), _hosts(events),
        who, _forged(events, actors),
    ]  # fmt: skip


def _hosts(events: Events) -> Pieces:
    asked = _methods_and_paths(events, b'"method":"%s","path":"%s",')
    hosts = _objects([f'"host":"{shape.host}",'.encode() for shape in SHAPES])[events["shape"]]
    together: Pieces = hosts + asked
    return together


def _methods_and_paths(events: Events, form: bytes) -> Pieces:
    """``form`` filled with method and path."""
    found = np.empty(len(events), object)
    shapes = events["shape"]
    for index in np.unique(shapes).tolist():
        shape = SHAPES[index]
        here = np.flatnonzero(shapes == index)
        method = shape.method.encode()
        if shape.pool:
            pool = _objects([form % (method, path.encode()) for path in shape.pool])
            found[here] = pool[events["path"][here] % len(pool)]
        elif "%" in shape.path:
            whole = form % (method, shape.path.encode())
            found[here] = _objects([whole % number for number in events["path"][here].tolist()])
        else:
            found[here] = form % (method, shape.path.encode())
    return found


def _identities(events: Events, actors: Actors) -> Pieces:
    """Key and account, as far as the log knows them."""
    found = _objects(actors.key_json_of(events["actor"]))
    found[_ANONYMOUS[events["shape"]]] = b""
    new = np.flatnonzero(events["flags"] & FLAG_NEW_ACCOUNT)
    new = new[~_ANONYMOUS[events["shape"][new]]]
    numbers = events["number"]
    found[new] = _objects([identity_json(new_key(number), new_account(number)) for number in numbers[new].tolist()])
    unknown = np.flatnonzero(events["flags"] & FLAG_NO_SUCH_KEY)
    found[unknown] = _objects([identity_json(unknown_key(number), "") for number in numbers[unknown].tolist()])
    return found


def _forged(events: Events, actors: Actors) -> Pieces:
    """X-Forwarded-For as it came: what the client claimed, then the address that our own proxy saw."""
    found = _fixed(b"", len(events))
    for index in np.flatnonzero(events["forged"] >= 0).tolist():
        claimed, seen = actors.address[events["forged"][index]], actors.address[events["actor"][index]]
        found[index] = f',"x_forwarded_for":"{claimed}, {seen}"'.encode()
    return found


def _flags(events: Events) -> Pieces:
    """Ends a line, unless tokens do."""
    flags = (events["flags"] & FLAG_AUTH_FAILED > 0) + 2 * (events["status"] == 499).astype(np.int64)
    pool = _objects([b"", b',"auth_failed":true', b',"cancelled":true', b',"auth_failed":true,"cancelled":true'])
    found: Pieces = pool[flags]
    return found


def _tokens(events: Events) -> Pieces:
    """Model, tokens and cost of the calls that have them."""
    found = _fixed(b"", len(events))
    here = np.flatnonzero(_HAS_TOKENS[events["shape"]])
    calls = events[here]
    micro = cost_micro(calls)
    columns = [calls[name].tolist() for name in ("tokens_in", "tokens_out", "tokens_cached", "max_tokens")]
    model = [MODELS[index].name.encode() for index in calls["model"].tolist()]
    rows = zip(model, *columns, (micro // 1_000_000).tolist(), (micro % 1_000_000).tolist(), strict=True)
    form = b',"model":"%s","tokens_in":%d,"tokens_out":%d,"tokens_cached":%d,"max_tokens":%d,"cost":%d.%06d'
    found[here] = _objects([form % row for row in rows])
    return found


def cost_micro(events: Events) -> I64:
    """i64[n]: what each call costs, in millionths; tokens that come from a cache cost half."""
    price_in = np.array([model.price_in for model in MODELS])[events["model"]]
    price_out = np.array([model.price_out for model in MODELS])[events["model"]]
    fresh = 2 * events["tokens_in"].astype(np.int64) - events["tokens_cached"]
    cost: I64 = (fresh * price_in // 2 + events["tokens_out"].astype(np.int64) * price_out) // 1000
    return cost


def _objects(values: list[bytes]) -> Pieces:
    found = np.empty(len(values), object)
    found[:] = values
    return found


def _fixed(value: bytes, count: int) -> Pieces:
    found = np.empty(count, object)
    found[:] = value
    return found


def _joined(pieces: list[Pieces]) -> list[bytes]:
    """One line of each row of pieces."""
    return [b"".join(row) + b"}\n" for row in zip(*(piece.tolist() for piece in pieces), strict=True)]
