"""A change of the configuration, as it lies on the topic ``config`` or in a file of history, one JSON object each.

Changes are a chain: each names the version that it changes, and the next version is one more. So whoever did not see the
last change is told, and a history read from its beginning gives the same configuration everywhere.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from schemas.config import explain
from schemas.errors import ConfigError

CHANGE_BYTES_MAX = 512 << 10
"""Of a change: some 3,000 exceptions, and less than a broker takes."""
DELAY_S = 5
"""A command writes ``effective_tick`` = now + lateness + this …"""
DELAY_S_MIN = 3
"""… and the record may be written up to two seconds later: judges ask for the time of the record + lateness + this."""
CLOCKS_S_MAX = 2
"""How far the clocks of a judge and of the brokers may differ."""
AHEAD_S_MAX = 86_400
"""A change of another day would stand in the way of all others until then."""
TRIAL_S = 600
"""How long a change that widens is tried in dry run, if nothing else is said, and how long a detector has to have been in
dry run before it is armed."""

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class ConfigChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One change of one section."""

    schema: Literal[1] = 1
    section: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    """``policy``, ``playbooks.NAME`` or ``detectors.NAME``."""
    values: dict[str, Any] = {}
    """Settings of the section, each as a whole: a list of rules has all of them. What is not named stays as it is."""
    unset: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    """Settings that become again what the deployment's file, or else the default, says."""
    base: Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]
    """The version that is changed; what comes of it is one more."""
    effective_tick: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]
    """The first second of event time (Unix) that is decided by it, on every judge."""
    at_ms: Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
    """When it was written, Unix milliseconds. On Kafka the brokers' own time of the record counts instead."""
    who: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    """Who answers for it."""
    why: Text
    """For whoever reads it in a year."""
    forced: bool = False
    """It may mitigate more than before without having been tried."""
    trial_s: Annotated[int, msgspec.Meta(ge=60, le=7 * 86_400)] | None = None
    """It is tried: beside the rules in force, these decide in dry run, as the detector ``NAME-trial``, and can be armed after
    so many seconds of event time."""
    arms: Annotated[int, msgspec.Meta(ge=1, le=1 << 40)] | None = None
    """The version that has been tried and is meant from here on; ``values`` and ``unset`` are empty then."""


Verdict = Literal["accepted", "refused", "applied", "late"]


class ConfigStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a change: ``accepted`` or ``refused`` when it was read, then ``applied`` by each judge partition."""

    section: str
    verdict: Verdict
    offset: int
    """Of the change in ``config``."""
    version: int
    """That came of it; of one that was refused, that stays in force."""
    effective_tick: int = 0
    partition: int | None = None
    """The judge partition that says so; none: the change has been looked at."""
    who: str = ""
    why: str = ""
    """Of ``refused``: the path, the bound and what came. Of ``late``: from which second on it holds there instead."""


_decoder = msgspec.json.Decoder(ConfigChange)


def decode_change(data: bytes) -> ConfigChange:
    """Read a change.

    Raises:
        ConfigError: it is none, with what was expected, what came, and where.
    """
    if len(data) > CHANGE_BYTES_MAX:
        raise ConfigError(f"expected a change of at most {CHANGE_BYTES_MAX} bytes, got {len(data)}")
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"expected a change of the configuration as JSON, got: {ascii(str(error))[1:-1][:120]}") from None


def _decode(data: bytes) -> ConfigChange:
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError as error:
        document = msgspec.json.decode(data)
        what = explain(str(error), document) if isinstance(document, dict) else f"got {error!s}"
        raise ConfigError(f"expected a change of the configuration: {what[:300]}") from None


def encode_change(change: ConfigChange) -> bytes:
    """As one line of JSON, without its end."""
    return msgspec.json.encode(change)


def encode_status(status: ConfigStatus) -> bytes:
    """As JSON."""
    return msgspec.json.encode(status)
