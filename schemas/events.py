"""Our own schema of events, for whoever writes a new producer: one JSON object per line or message.

The decoders read these names among many others (docs/formats.md), with compiled kernels and not through these structs:
they are the documentation, the JSON Schemas in docs/schemas/, and what a producer in Python can encode with msgspec.
Fields that are not there are left out or null. Which kind a record is decides nothing by itself: a registration and a
verification say so in ``event``, and everything else is a request.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Text = Annotated[str, msgspec.Meta(min_length=1)]
Amount = Annotated[int, msgspec.Meta(ge=0)]


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every kind may say. ``time`` and one of address, path, key, account and mail domain must be there."""

    time: str | int | float
    """When it completed: RFC 3339 with zone, or Unix time in seconds or milliseconds, as a number or as text."""
    client_ip: Text | None = None
    """The client's address as the producer resolved it. It counts at any ``input.proxy_depth``."""
    remote_addr: Text | None = None
    """The address that the connection came from, for producers that resolve nothing; counts at ``proxy_depth`` 0."""
    x_forwarded_for: Text | None = None
    """The header as received; ``proxy_depth`` says which entry counts."""
    host: Text | None = None
    """The service that was asked. None: ``input.service``."""
    method: Text | None = None
    """Of HTTP."""
    path: Text | None = None
    """With its query string, as received."""
    status: Annotated[int, msgspec.Meta(ge=100, le=599)] | None = None
    """The HTTP status. 401 and 403 are failed authentications, 429 and 503 our own denials, 499 means cancelled."""
    bytes: Amount | None = None
    """Sent to the client."""
    duration_ms: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """From the request's first byte to the answer's last."""
    user_agent: Text | None = None
    """The header as received."""
    request_id: Text | None = None
    """Whatever names the request in the producer's own logs."""
    country: Annotated[str, msgspec.Meta(min_length=2, max_length=2)] | None = None
    """ISO 3166 code of the address."""
    asn: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] | None = None
    """Number of the autonomous system of the address."""
    fingerprint: Text | None = None
    """JA4 of the client's TLS."""
    auth_failed: bool | None = None
    """The authentication failed, whatever the status says. Then key, account and mail domain are named, not proven."""
    denied: bool | None = None
    """We denied it ourselves (a limit, an edge), whatever the status says."""
    cancelled: bool | None = None
    """The client went away before the answer was complete."""


class AccessLogRecord(Event, frozen=True, kw_only=True, omit_defaults=True):
    """A line of an access log (topic ``access-log``)."""

    referrer: Text | None = None
    """The header as received."""
    user_name: Text | None = None
    """Who authenticated by HTTP; not counted by."""
    api_key_hash: Text | None = None
    """The gateway's own hash or id of the key, taken as it is."""
    api_key: Text | None = None
    """The key in the clear; it becomes a keyed fingerprint while it is decoded and goes nowhere."""
    account: Text | None = None
    """Customer, team or organisation that pays."""


class Request(Event, frozen=True, kw_only=True, omit_defaults=True):
    """A request to an API, with what it used (topic ``requests``)."""

    api_key_hash: Text | None = None
    """The gateway's own hash or id of the key, taken as it is."""
    api_key: Text | None = None
    """The key in the clear; it becomes a keyed fingerprint while it is decoded and goes nowhere."""
    account: Text | None = None
    """Customer, team or organisation that pays."""
    model: Text | None = None
    """Which answered."""
    tokens_in: Amount | None = None
    """Tokens of the prompt."""
    tokens_out: Amount | None = None
    """Tokens of the answer."""
    tokens_cached: Amount | None = None
    """Of ``tokens_in``, those that came from a cache."""
    max_tokens: Amount | None = None
    """What the request allowed the answer to be."""
    cost: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """In whole units of a currency; kept to the millionth."""


class Registration(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody signed up, or tried to (topic ``registrations``)."""

    event: Literal["registration"] = msgspec.field(default_factory=lambda: "registration")
    """What makes the record a registration. Always written."""
    email_domain: Text | None = None
    """What stands behind the @."""
    email: Text | None = None
    """The whole address, if the producer has nothing shorter: only the domain is kept."""
    account: Text | None = None
    """The account that was made; none, if it was refused."""
    user_name: Text | None = None
    """The name that was chosen."""


class Verification(Event, frozen=True, kw_only=True, omit_defaults=True):
    """An earlier account was verified: mail, phone or means of payment (topic ``registrations``). No measure counts it."""

    event: Literal["verification"] = msgspec.field(default_factory=lambda: "verification")
    """What makes the record a verification. Always written. One that failed or was refused is a request like any other."""
    account: Text
    """Whose, in the words of its registration. A verification that names none is refused (``not_an_event``)."""


KINDS: dict[str, type[Event]] = {
    "request": Request, "registration": Registration, "verification": Verification, "access-log": AccessLogRecord,
}  # fmt: skip
"""By the name of their JSON Schema."""
