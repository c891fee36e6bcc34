"""From the slots of a JSON event to a row of the columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.columns import U8
from schemas.compiled import inlined, part
from schemas.decoding.addresses import V4_PREFIX, forwarded_address_kernel, is_host_name_kernel, parse_address_kernel, parse_v4
from schemas.decoding.escapes import JSON_ESCAPES
from schemas.decoding.fingerprint import FINGERPRINT_BYTES, write_fingerprint_kernel
from schemas.decoding.layout import (
    ARENA,
    ARENA_END,
    BARE,
    CELL_HIGH,
    CELL_LOW,
    CELL_MASK,
    PROXY_DEPTH,
    SEED_0,
    SEED_1,
    SLOT_END,
    SLOT_INFO,
    SLOT_START,
    STOPPED_AT,
    STRING,
    UNIT_BIAS,
    UNIT_SHIFT,
    Slot,
)
from schemas.decoding.machine import byte_at
from schemas.decoding.numbers import BAD, parse_number_kernel
from schemas.decoding.paths import HEADER, SOFT
from schemas.decoding.rows import (
    REPLACED_SHIFT,
    SOURCE_SHIFT,
    bounded_time,
    path_kernel,
    put_number,
    put_text,
    split_request,
    status_flags,
    unescape_value_kernel,
    without_port,
)
from schemas.decoding.times import TIME_MS_MAX, parse_time_kernel
from schemas.fields import MISSING, Flag, Number, Poison, Text

OK, TOO_LONG, BAD_TIME, BAD_ADDRESS = int(Poison.OK), int(Poison.TOO_LONG), int(Poison.BAD_TIME), int(Poison.BAD_ADDRESS)
BAD_STATUS, BAD_NUMBER, NOT_AN_EVENT = int(Poison.BAD_STATUS), int(Poison.BAD_NUMBER), int(Poison.NOT_AN_EVENT)
_CREDENTIAL_COLUMNS = (1 << (len(Number) + int(Text.API_KEY))) | (1 << (len(Number) + int(Text.ACCOUNT)))
F_HAS_IP, F_AUTHENTICATED = int(Flag.HAS_IP), int(Flag.AUTHENTICATED)
F_AUTH_FAILED, F_REGISTRATION = int(Flag.AUTH_FAILED), int(Flag.REGISTRATION)
F_CANCELLED, F_OWN_DENIAL, F_TIME_REPLACED = int(Flag.CANCELLED), int(Flag.OWN_DENIAL), int(Flag.TIME_REPLACED)
F_VERIFICATION = int(Flag.VERIFICATION)
_NO_VERIFICATION = F_AUTH_FAILED | F_CANCELLED | F_OWN_DENIAL
# Constants that are arguments are np.int64: for a plain int numba would compile the callee anew for each value.
N_TIME, N_DURATION, N_STATUS = np.int64(Number.TIME_MS), np.int64(Number.DURATION_MS), np.int64(Number.STATUS)
N_BYTES, N_ASN, N_FLAGS = np.int64(Number.BYTES), np.int64(Number.ASN), np.int64(Number.FLAGS)
T_METHOD, T_PATH = np.int64(Text.METHOD), np.int64(Text.PATH)
T_USER_AGENT, T_API_KEY = np.int64(Text.USER_AGENT), np.int64(Text.API_KEY)
T_ACCOUNT, T_HOST = np.int64(Text.ACCOUNT), np.int64(Text.HOST)
T_COUNTRY, T_FINGERPRINT = np.int64(Text.COUNTRY), np.int64(Text.FINGERPRINT)
T_EMAIL_DOMAIN, T_REFERRER, T_MODEL = np.int64(Text.EMAIL_DOMAIN), np.int64(Text.REFERRER), np.int64(Text.MODEL)
T_USER_NAME, T_REQUEST_ID = np.int64(Text.USER_NAME), np.int64(Text.REQUEST_ID)

S_TIME, S_START_TIME, S_DURATION = np.int64(Slot.TIME), np.int64(Slot.START_TIME), np.int64(Slot.DURATION)
S_STATUS, S_BYTES, S_ASN = np.int64(Slot.STATUS), np.int64(Slot.BYTES), np.int64(Slot.ASN)
S_REMOTE_ADDR, S_CLIENT_IP, S_FORWARDED = np.int64(Slot.REMOTE_ADDR), np.int64(Slot.CLIENT_IP), np.int64(Slot.X_FORWARDED_FOR)
S_REAL_IP, S_CONNECTING_IP = np.int64(Slot.X_REAL_IP), np.int64(Slot.CF_CONNECTING_IP)
S_METHOD, S_PATH, S_URL, S_REQUEST = np.int64(Slot.METHOD), np.int64(Slot.PATH), np.int64(Slot.URL), np.int64(Slot.REQUEST)
S_USER_AGENT, S_API_KEY_HASH, S_API_KEY = np.int64(Slot.USER_AGENT), np.int64(Slot.API_KEY_HASH), np.int64(Slot.API_KEY)
S_ACCOUNT, S_HOST, S_COUNTRY = np.int64(Slot.ACCOUNT), np.int64(Slot.HOST), np.int64(Slot.COUNTRY)
S_FINGERPRINT, S_EMAIL_DOMAIN, S_EMAIL = np.int64(Slot.FINGERPRINT), np.int64(Slot.EMAIL_DOMAIN), np.int64(Slot.EMAIL)
S_REFERRER, S_MODEL = np.int64(Slot.REFERRER), np.int64(Slot.MODEL)
S_USER_NAME, S_REQUEST_ID = np.int64(Slot.USER_NAME), np.int64(Slot.REQUEST_ID)
S_EVENT, S_REGISTRATION, S_AUTH_FAILED = np.int64(Slot.EVENT), np.int64(Slot.REGISTRATION), np.int64(Slot.AUTH_FAILED)
S_DENIED, S_CANCELLED, S_RESPONSE_FLAGS = np.int64(Slot.DENIED), np.int64(Slot.CANCELLED), np.int64(Slot.RESPONSE_FLAGS)


def _bits(*slots: np.int64) -> int:
    return sum(1 << int(slot) for slot in slots)


ADDRESSES = _bits(S_REMOTE_ADDR, S_CLIENT_IP, S_FORWARDED, S_REAL_IP, S_CONNECTING_IP)
CREDENTIALS = _bits(S_API_KEY_HASH, S_API_KEY, S_ACCOUNT)
TARGETS = _bits(S_PATH, S_URL, S_REQUEST)
SUBJECTS = ADDRESSES | CREDENTIALS | TARGETS | _bits(S_EMAIL_DOMAIN, S_EMAIL)
"""An event names at least one of these."""
OWN_WORDS = ADDRESSES | CREDENTIALS | _bits(S_METHOD, S_REQUEST, S_EMAIL_DOMAIN, S_EMAIL)
"""A record with one of these speaks for itself, and its ``message`` is no envelope's content but a text, maybe a client's."""
_MEASURES = _bits(*(np.int64(slot) for slot in range(Slot.TOKENS_IN, Slot.ASN + 1)))
_WORDS_OF_FLAGS = _bits(S_EVENT, S_REGISTRATION, S_AUTH_FAILED, S_DENIED, S_CANCELLED, S_RESPONSE_FLAGS)
_RARE_TEXTS = _bits(S_COUNTRY, S_FINGERPRINT, S_EMAIL_DOMAIN, S_EMAIL, S_REFERRER, S_MODEL, S_USER_NAME)
_MEASURE_COLUMNS = np.array(
    [int(Number[Slot(slot).name if slot != Slot.COST else "COST_MICRO"]) for slot in range(Slot.TOKENS_IN, Slot.ASN + 1)],
    np.int64,
)
DURATION_MS_MAX = 10**10
"""About four months; what claims to have lasted longer has no duration."""
DOMAIN_BYTES_MAX = 253
ASN_MAX = 2**32 - 1
SOURCE_NONE, SOURCE_CONNECTION, SOURCE_FORWARDED, SOURCE_REAL_IP, SOURCE_CONNECTING_IP, SOURCE_OTHER = range(6)
_REGISTRATIONS = [
    "registration", "register", "registered", "signup", "sign_up", "sign-up", "user_registration",
    "user-registration", "user_registered", "account_created", "account.created", "user_created", "user.created",
    "user.registered",
]  # fmt: skip
_VERIFICATIONS = [
    "verification", "verified", "account_verified", "account.verified", "user_verified", "user.verified", "email_verified",
    "email.verified", "phone_verified", "phone.verified", "payment_verified", "payment.verified",
]  # fmt: skip
_WORD_WIDTH = 24


def _as_text(words: list[str]) -> U8:
    """u8[words * _WORD_WIDTH]: each filled up with blanks."""
    return np.frombuffer("".join(f"{word:<{_WORD_WIDTH}}" for word in words).encode(), np.uint8)


_REGISTRATION_TEXT, _VERIFICATION_TEXT = _as_text(_REGISTRATIONS), _as_text(_VERIFICATIONS)
_ZERO = np.uint64(0)
LOWER, UPPER = np.int64(0), np.int64(1)


@inlined
def _has(seen: Any, slot: Any) -> Any:
    return (seen >> slot) & 1 == 1


@part
def is_true_kernel(buffer: Any, start: Any) -> Any:
    """Does a value begin as ``true``, ``1`` or ``yes`` do?"""
    byte = byte_at(buffer, start)
    return byte == 49 or byte | 0x20 == 116 or byte | 0x20 == 121


@part
def is_one_of_kernel(buffer: Any, start: Any, end: Any, words: Any) -> Any:
    """Is the value one of these words (as `_as_text` writes them)?"""
    length = end - start
    if length > _WORD_WIDTH:
        return False
    for word in range(len(words) // _WORD_WIDTH):
        same = True
        for index in range(_WORD_WIDTH):
            byte = byte_at(buffer, start + index) if index < length else np.int64(32)
            if byte != words[word * _WORD_WIDTH + index]:
                same = False
                break
        if same:
            return True
    return False


@part
def envoy_flags_kernel(buffer: Any, start: Any, end: Any) -> Any:
    """Flags of Envoy's ``response_flags``: DC (the client went away) and RL (our own rate limit), in a list of commas."""
    flags = np.int64(0)
    at = start
    while at < end:
        stop = at
        while stop < end and byte_at(buffer, stop) != 44:
            stop += 1
        if stop - at == 2:
            first, second = byte_at(buffer, at), byte_at(buffer, at + 1)
            if first == 68 and second == 67:
                flags |= F_CANCELLED
            elif first == 82 and second == 76:
                flags |= F_OWN_DENIAL
        at = stop + 1
    return flags


@part
def _word_flags_kernel(buffer: Any, state: Any, seen: Any) -> Any:
    """The flags that slots name in words."""
    flags = np.int64(0)
    if _has(seen, S_REGISTRATION) and is_true_kernel(buffer, state[SLOT_START + S_REGISTRATION]):
        flags |= F_REGISTRATION
    if _has(seen, S_EVENT):
        start, end = state[SLOT_START + S_EVENT], state[SLOT_END + S_EVENT]
        if is_one_of_kernel(buffer, start, end, _REGISTRATION_TEXT):
            flags |= F_REGISTRATION
        elif is_one_of_kernel(buffer, start, end, _VERIFICATION_TEXT):
            flags |= F_VERIFICATION
    if _has(seen, S_AUTH_FAILED) and is_true_kernel(buffer, state[SLOT_START + S_AUTH_FAILED]):
        flags |= F_AUTH_FAILED
    if _has(seen, S_DENIED) and is_true_kernel(buffer, state[SLOT_START + S_DENIED]):
        flags |= F_OWN_DENIAL
    if _has(seen, S_CANCELLED) and is_true_kernel(buffer, state[SLOT_START + S_CANCELLED]):
        flags |= F_CANCELLED
    if _has(seen, S_RESPONSE_FLAGS):
        flags |= envoy_flags_kernel(buffer, state[SLOT_START + S_RESPONSE_FLAGS], state[SLOT_END + S_RESPONSE_FLAGS])
    return flags


@part
def _verification_kernel(buffer: Any, state: Any, seen: Any, flags: Any, status: Any) -> Any:
    """(flags, reason): a verification says whose; one that failed was a request, and is one."""
    if status >= 400 or flags & _NO_VERIFICATION != 0:
        return flags & ~F_VERIFICATION, OK
    start, end = state[SLOT_START + S_ACCOUNT], state[SLOT_END + S_ACCOUNT]
    named = _has(seen, S_ACCOUNT) and end > start
    if not named or (state[SLOT_INFO + S_ACCOUNT] & BARE != 0 and byte_at(buffer, start) > 57):
        state[STOPPED_AT] = state[SLOT_START + S_EVENT]
        return flags, NOT_AN_EVENT
    return flags & ~F_REGISTRATION, OK


@inlined
def _unit(info: Any) -> Any:
    return (info >> UNIT_SHIFT) - UNIT_BIAS


@part
def _duration_kernel(buffer: Any, state: Any) -> Any:
    """Milliseconds, or `MISSING` for what is no duration. A trailing ``s`` is read (``"0.012s"``)."""
    start, end = state[SLOT_START + S_DURATION], state[SLOT_END + S_DURATION]
    shift = _unit(state[SLOT_INFO + S_DURATION])
    if end - start > 1 and byte_at(buffer, end - 1) == 115:
        end -= 1
        shift = np.int64(3)
        if end - start > 1 and byte_at(buffer, end - 1) == 109:
            end -= 1
            shift = np.int64(0)
    value = parse_number_kernel(buffer, start, end, shift)
    return value if 0 <= value <= DURATION_MS_MAX else np.int64(MISSING)


@part
def _moment_kernel(buffer: Any, state: Any, seen: Any, duration_ms: Any, given_ms: Any) -> Any:
    """(completion in Unix ms, duration): the time of completion, else the start plus the duration, else the envelope's."""
    if _has(seen, S_TIME):
        moment = parse_time_kernel(buffer, state[SLOT_START + S_TIME], state[SLOT_END + S_TIME], state)
        if duration_ms < 0 and moment >= 0 and _has(seen, S_START_TIME):
            begun = parse_time_kernel(buffer, state[SLOT_START + S_START_TIME], state[SLOT_END + S_START_TIME], state)
            if 0 <= begun <= moment and moment - begun <= DURATION_MS_MAX:
                duration_ms = moment - begun
        state[STOPPED_AT] = state[SLOT_START + S_TIME]
        return moment, duration_ms
    if _has(seen, S_START_TIME):
        moment = parse_time_kernel(buffer, state[SLOT_START + S_START_TIME], state[SLOT_END + S_START_TIME], state)
        state[STOPPED_AT] = state[SLOT_START + S_START_TIME]
        if moment >= 0 and duration_ms > 0:
            moment += duration_ms
        return moment if moment < TIME_MS_MAX else np.int64(-1), duration_ms
    return given_ms, duration_ms


@part
def _status_kernel(buffer: Any, state: Any) -> Any:
    """(status or `MISSING`, reason). 0 is what Envoy and nginx write when no answer was sent, so it is missing."""
    start, end = state[SLOT_START + S_STATUS], state[SLOT_END + S_STATUS]
    info = state[SLOT_INFO + S_STATUS]
    value = parse_number_kernel(buffer, start, end, np.int64(0))
    if 100 <= value <= 599:
        return value, OK
    if value == 0 or _unit(info) == SOFT:
        return np.int64(MISSING), OK
    first = byte_at(buffer, start) | 0x20
    if value == BAD and info & STRING != 0 and 97 <= first <= 122:
        # A word: LiteLLM says "success" or "failure" and puts the code elsewhere.
        return np.int64(200 if end - start == 7 and first == 115 else MISSING), OK
    state[STOPPED_AT] = start
    return np.int64(MISSING), BAD_STATUS


@part
def _measure_kernel(buffer: Any, state: Any, slot: Any) -> Any:
    """An integer of a slot in its unit, or `MISSING` for what is none; an AS number may be written ``AS64500``."""
    start, end = state[SLOT_START + slot], state[SLOT_END + slot]
    if slot == S_ASN and end - start > 2 and byte_at(buffer, start) | 0x20 == 97:
        start += 2
    value = parse_number_kernel(buffer, start, end, _unit(state[SLOT_INFO + slot]))
    if value < 0 or (slot == S_ASN and value > ASN_MAX):
        return np.int64(MISSING)
    return value


@part
def _address_kernel(buffer: Any, state: Any, seen: Any) -> Any:
    """(ok, high, low, source, reason) of the event's address.

    Resolved addresses count at any depth. Below a proxy only X-Forwarded-For counts, and never anything instead of it.
    """
    slot = S_REMOTE_ADDR
    source = SOURCE_CONNECTION
    if _has(seen, S_CONNECTING_IP):
        slot, source = S_CONNECTING_IP, SOURCE_CONNECTING_IP
    elif _has(seen, S_REAL_IP):
        slot, source = S_REAL_IP, SOURCE_REAL_IP
    elif _has(seen, S_CLIENT_IP):
        slot, source = S_CLIENT_IP, SOURCE_OTHER
    elif state[PROXY_DEPTH] > 0:
        if not _has(seen, S_FORWARDED):
            return False, _ZERO, _ZERO, SOURCE_NONE, OK
        ok, high, low = forwarded_address_kernel(
            buffer, state[SLOT_START + S_FORWARDED], state[SLOT_END + S_FORWARDED], state[PROXY_DEPTH]
        )
        return ok, high, low, SOURCE_FORWARDED, OK
    if not _has(seen, slot):
        return False, _ZERO, _ZERO, SOURCE_NONE, OK
    start, end = state[SLOT_START + slot], state[SLOT_END + slot]
    value, after = parse_v4(buffer, start, end)
    if value >= 0 and after == end:
        ok, high, low = True, _ZERO, V4_PREFIX | np.uint64(value)
    else:
        ok, high, low = parse_address_kernel(buffer, start, end)
    if ok and state[SLOT_INFO + slot] & STRING != 0:
        return True, high, low, source, OK
    if slot != S_REAL_IP and not (state[SLOT_INFO + slot] & STRING != 0 and is_host_name_kernel(buffer, start, end)):
        state[STOPPED_AT] = start
        return False, _ZERO, _ZERO, SOURCE_NONE, BAD_ADDRESS
    return False, _ZERO, _ZERO, SOURCE_NONE, OK


@part
def _lower_kernel(buffer: Any, start: Any, end: Any, state: Any, case: Any) -> Any:
    """(start, end, reason): the text in lower case (or in upper), copied into the arena only when it is not already."""
    first, last = (97, 122) if case == UPPER else (65, 90)
    differs = False
    for at in range(start, end):
        differs = differs or first <= byte_at(buffer, at) <= last
    if not differs:
        return start, end, OK
    out = state[ARENA]
    if out + (end - start) > state[ARENA_END]:
        return start, end, TOO_LONG
    for index in range(end - start):
        byte = byte_at(buffer, start + index)
        buffer[out + index] = byte ^ 0x20 if first <= byte <= last else byte
    state[ARENA] = out + (end - start)
    return out, state[ARENA], OK


@part
def _email_domain_kernel(buffer: Any, state: Any, seen: Any) -> Any:
    """(start, end, reason) of the mail domain in lower case; nothing before the @ is kept."""
    slot = S_EMAIL_DOMAIN if _has(seen, S_EMAIL_DOMAIN) else S_EMAIL
    start, end = state[SLOT_START + slot], state[SLOT_END + slot]
    at = end
    while at > start and byte_at(buffer, at - 1) != 64:
        at -= 1
    if at == start and slot == S_EMAIL:
        return start, start, OK
    if end - at > DOMAIN_BYTES_MAX:
        return start, start, OK
    return _lower_kernel(buffer, at, end, state, LOWER)


@part
def _begins_kernel(buffer: Any, start: Any, end: Any, words: Any) -> Any:
    """Does the value begin with these bytes, letters in either case?"""
    if end - start < len(words):
        return False
    for index in range(len(words)):
        byte = byte_at(buffer, start + index)
        if byte != words[index] and byte | 0x20 != words[index]:
            return False
    return True


_BEARER = np.frombuffer(b"bearer ", np.uint8)
_SHA256 = np.frombuffer(b"sha256:", np.uint8)
_OURS = np.frombuffer(b"fp:", np.uint8)
_REDACTED = np.frombuffer(b"redacted", np.uint8)


@part
def _key_kernel(buffer: Any, state: Any, seen: Any) -> Any:
    """(start, end, reason) of the key's fingerprint: the gateway's own, else one of ours in the arena.

    A header is hashed whatever it looks like: a client that sends ``fp:…`` must not pass for another's fingerprint. What
    the gateway blanked (``***``, ``REDACTED``) is missing, else all its keys were one.
    """
    if _has(seen, S_API_KEY_HASH):
        return state[SLOT_START + S_API_KEY_HASH], state[SLOT_END + S_API_KEY_HASH], OK
    start, end = state[SLOT_START + S_API_KEY], state[SLOT_END + S_API_KEY]
    if _begins_kernel(buffer, start, end, _BEARER):
        start += 7
    elif _unit(state[SLOT_INFO + S_API_KEY]) != HEADER and (
        _begins_kernel(buffer, start, end, _SHA256) or _begins_kernel(buffer, start, end, _OURS)
    ):
        return start, end, OK
    while start < end and byte_at(buffer, start) <= 32:
        start += 1
    first = start + (1 if byte_at(buffer, start) == 91 else 0)
    blanked = _begins_kernel(buffer, first, end, _REDACTED)
    at = start
    while at < end and byte_at(buffer, at) == 42:
        at += 1
    if at == end or blanked:
        return start, start, OK
    out = state[ARENA]
    if out + FINGERPRINT_BYTES > state[ARENA_END]:
        return start, start, TOO_LONG
    write_fingerprint_kernel(np.uint64(state[SEED_0]), np.uint64(state[SEED_1]), buffer, start, end, out)
    state[ARENA] = out + FINGERPRINT_BYTES
    return out, state[ARENA], OK


@part
def undo_escapes_kernel(buffer: Any, state: Any, escaped: Any) -> Any:
    """Replace the values that have escapes (bits of slots) by their text in the arena; the reason why not, or OK."""
    slot = 0
    while escaped != 0:
        if escaped & 1 == 1:
            start, end, reason = unescape_value_kernel(
                buffer, state[SLOT_START + slot], state[SLOT_END + slot], state, JSON_ESCAPES
            )
            if reason != OK:
                state[STOPPED_AT] = start
                return reason
            state[SLOT_START + slot], state[SLOT_END + slot] = start, end
        escaped >>= 1
        slot += 1
    return OK


@inlined
def _put_slot(state: Any, seen: Any, slot: Any, column: Any, row: Any, spans: Any, buffer: Any) -> Any:
    """Write the text of a slot; true, false and objects are no text."""
    if not _has(seen, slot):
        return np.int64(0)
    start, end = state[SLOT_START + slot], state[SLOT_END + slot]
    if state[SLOT_INFO + slot] & BARE != 0 and byte_at(buffer, start) > 57:
        return np.int64(0)
    return put_text(spans, row, column, start, end)


@part
def _put_target(buffer: Any, state: Any, seen: Any, row: Any, spans: Any) -> Any:
    """Write method, path and host; the mask of what was there."""
    mask = _put_slot(state, seen, S_METHOD, T_METHOD, row, spans, buffer)
    host_start = host_end = np.int64(0)
    path_start = path_end = np.int64(0)
    if _has(seen, S_PATH):
        path_start, path_end = state[SLOT_START + S_PATH], state[SLOT_END + S_PATH]
    elif _has(seen, S_REQUEST):
        start = state[SLOT_START + S_REQUEST]
        method_end, path_start, path_end = split_request(buffer, start, state[SLOT_END + S_REQUEST])
        if not _has(seen, S_METHOD):
            mask |= put_text(spans, row, T_METHOD, start, method_end)
    elif _has(seen, S_URL):
        path_start, path_end = state[SLOT_START + S_URL], state[SLOT_END + S_URL]
    if path_end > path_start and byte_at(buffer, path_start) != 47:
        path_start, host_start, host_end = path_kernel(buffer, path_start, path_end)
    if _has(seen, S_HOST):
        host_start, host_end = state[SLOT_START + S_HOST], state[SLOT_END + S_HOST]
    if host_end > host_start:
        host_end = without_port(buffer, host_start, host_end)
    mask |= put_text(spans, row, T_PATH, path_start, path_end)
    mask |= put_text(spans, row, T_HOST, host_start, host_end)
    return mask


@part
def _put_rare_kernel(buffer: Any, state: Any, seen: Any, row: Any, spans: Any) -> Any:
    """Write the texts that few records have; (mask, reason)."""
    mask = _put_slot(state, seen, S_FINGERPRINT, T_FINGERPRINT, row, spans, buffer)
    mask |= _put_slot(state, seen, S_REFERRER, T_REFERRER, row, spans, buffer)
    mask |= _put_slot(state, seen, S_MODEL, T_MODEL, row, spans, buffer)
    mask |= _put_slot(state, seen, S_USER_NAME, T_USER_NAME, row, spans, buffer)
    if _has(seen, S_COUNTRY) and state[SLOT_END + S_COUNTRY] - state[SLOT_START + S_COUNTRY] == 2:
        start, end, reason = _lower_kernel(buffer, state[SLOT_START + S_COUNTRY], state[SLOT_END + S_COUNTRY], state, UPPER)
        if reason != OK:
            return mask, reason
        mask |= put_text(spans, row, T_COUNTRY, start, end)
    if _has(seen, S_EMAIL_DOMAIN) or _has(seen, S_EMAIL):
        start, end, reason = _email_domain_kernel(buffer, state, seen)
        if reason != OK:
            return mask, reason
        mask |= put_text(spans, row, T_EMAIL_DOMAIN, start, end)
    return mask, OK


@part
def finish_event_kernel(
    buffer: Any, seen: Any, escaped: Any, row: Any, given_ms: Any, bound_ms: Any, state: Any, cells: Any, spans: Any
) -> Any:
    """Write the slots of one event into ``row``; the reason why not, or OK.

    ``seen`` and ``escaped`` are bits of slots, ``given_ms`` the time of an envelope or `MISSING`.
    """
    if escaped != 0:
        reason = undo_escapes_kernel(buffer, state, escaped)
        if reason != OK:
            return reason
    if seen & SUBJECTS == 0:
        return NOT_AN_EVENT
    duration_ms = _duration_kernel(buffer, state) if _has(seen, S_DURATION) else np.int64(MISSING)
    time_ms, duration_ms = _moment_kernel(buffer, state, seen, duration_ms, given_ms)
    if time_ms < 0:
        return BAD_TIME
    status = size = np.int64(MISSING)
    if _has(seen, S_STATUS):
        status, reason = _status_kernel(buffer, state)
        if reason != OK:
            return reason
    if _has(seen, S_BYTES):
        size = parse_number_kernel(buffer, state[SLOT_START + S_BYTES], state[SLOT_END + S_BYTES], np.int64(0))
        if size < 0:
            state[STOPPED_AT] = state[SLOT_START + S_BYTES]
            return BAD_NUMBER
    ok, high, low, source, reason = _address_kernel(buffer, state, seen)
    if reason != OK:
        return reason

    time_ms, replaced = bounded_time(time_ms, bound_ms, state)
    flags = status_flags(status)
    mask = np.int64(1 << N_TIME)
    if replaced:
        flags |= F_TIME_REPLACED
        mask |= np.int64(1) << REPLACED_SHIFT
    if seen & _WORDS_OF_FLAGS != 0:
        flags |= _word_flags_kernel(buffer, state, seen)
        if flags & F_VERIFICATION != 0:
            flags, reason = _verification_kernel(buffer, state, seen, flags, status)
            if reason != OK:
                return reason
    if ok:
        flags |= F_HAS_IP
        mask |= np.int64(source) << SOURCE_SHIFT
    cells[CELL_HIGH, row] = np.int64(high if ok else _ZERO)
    cells[CELL_LOW, row] = np.int64(low if ok else _ZERO)
    mask |= put_number(cells, row, N_DURATION, duration_ms)
    mask |= put_number(cells, row, N_STATUS, status)
    mask |= put_number(cells, row, N_BYTES, size)
    if seen & _MEASURES != 0:
        for slot in range(S_BYTES + 1, S_ASN + 1):
            if _has(seen, slot):
                mask |= put_number(cells, row, _MEASURE_COLUMNS[slot - S_BYTES - 1], _measure_kernel(buffer, state, slot))
    if seen & CREDENTIALS != 0:
        if _has(seen, S_API_KEY_HASH) or _has(seen, S_API_KEY):
            start, end, reason = _key_kernel(buffer, state, seen)
            if reason != OK:
                return reason
            mask |= put_text(spans, row, T_API_KEY, start, end)
        mask |= _put_slot(state, seen, S_ACCOUNT, T_ACCOUNT, row, spans, buffer)
        if mask & _CREDENTIAL_COLUMNS != 0:
            flags |= F_AUTHENTICATED
    mask |= _put_target(buffer, state, seen, row, spans)
    mask |= _put_slot(state, seen, S_USER_AGENT, T_USER_AGENT, row, spans, buffer)
    mask |= _put_slot(state, seen, S_REQUEST_ID, T_REQUEST_ID, row, spans, buffer)
    if seen & _RARE_TEXTS != 0:
        rare, reason = _put_rare_kernel(buffer, state, seen, row, spans)
        if reason != OK:
            return reason
        mask |= rare
    cells[N_TIME, row] = time_ms
    cells[N_FLAGS, row] = flags
    cells[CELL_MASK, row] = mask
    return OK
