"""One log line: common, combined, nginx's ``main``, with a virtual host before it, and uvicorn's.

The line is found from its first quote. Servers escape quotes in everything a client says, also in the user name that
stands before the time; blanks and brackets they do not. So what ends in ``] "`` there is the server's own time, and a
client that calls itself ``x [01/Jan/2030:00:00:00 +0000]`` moves nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schemas.compiled import inlined, part
from schemas.decoding.addresses import V4_PREFIX, forwarded_address_kernel, parse_address_kernel, parse_peer_kernel, parse_v4
from schemas.decoding.escapes import LOG_ESCAPES
from schemas.decoding.layout import CELL_HIGH, CELL_LOW, CELL_MASK, PROXY_DEPTH, STOPPED_AT
from schemas.decoding.machine import (
    BACKSLASH,
    QUOTE,
    SPACE,
    byte_at,
    digit_run,
    digits_value,
    find_quote,
    find_raw_quote,
    find_space,
    word_at,
)
from schemas.decoding.numbers import NUMBER_MAX
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
from schemas.decoding.times import TIME_MS_MAX, clf_ms, iso_kernel, parse_time_kernel
from schemas.fields import MISSING, Flag, Number, Poison, Text

OK, TRUNCATED, NOT_A_RECORD = int(Poison.OK), int(Poison.TRUNCATED), int(Poison.NOT_A_RECORD)
BAD_TIME, BAD_STATUS, BAD_NUMBER = int(Poison.BAD_TIME), int(Poison.BAD_STATUS), int(Poison.BAD_NUMBER)
F_HAS_IP, F_TIME_REPLACED = int(Flag.HAS_IP), int(Flag.TIME_REPLACED)
# Constants that are arguments are np.int64: for a plain int numba would compile the callee anew for each value.
N_TIME, N_STATUS = np.int64(Number.TIME_MS), np.int64(Number.STATUS)
N_BYTES, N_FLAGS = np.int64(Number.BYTES), np.int64(Number.FLAGS)
T_METHOD, T_PATH, T_USER_AGENT = np.int64(Text.METHOD), np.int64(Text.PATH), np.int64(Text.USER_AGENT)
T_HOST, T_REFERRER, T_USER_NAME = np.int64(Text.HOST), np.int64(Text.REFERRER), np.int64(Text.USER_NAME)
SOURCE_NONE, SOURCE_CONNECTION, SOURCE_FORWARDED = 0, 1, 2
_BRACKET_BACK = 40
"""No time is longer than this."""
_PREFIX_BYTES_MAX = 400
"""How far a shipper's prefix (syslog, container runtime) may reach."""
_DIGITS_MAX = 16
_ZERO = np.uint64(0)
_BLANKS, _TWO_BLANKS = np.uint64(0xFF000000FF), np.uint64(0x2000000020)
_FIVE_BYTES, _NOBODY = np.uint64(0xFFFFFFFFFF), np.uint64(int.from_bytes(b" - - ", "little"))


@part
def _escaped_quote_kernel(buffer: Any, at: Any, end: Any) -> Any:
    """The next quote that no backslash escapes, from the backslash at ``at``; ``end`` when there is none."""
    while at < end and byte_at(buffer, at) == BACKSLASH:
        at = find_quote(buffer, at + 2, end)
    return at


@part
def _is_word_kernel(buffer: Any, start: Any, end: Any, word: Any) -> Any:
    if end - start != len(word):
        return False
    for index in range(len(word)):
        if byte_at(buffer, start + index) != word[index]:
            return False
    return True


_STDOUT = np.frombuffer(b"stdout", np.uint8)
_STDERR = np.frombuffer(b"stderr", np.uint8)


@part
def _syslog_kernel(buffer: Any, start: Any, end: Any, state: Any) -> Any:
    """(start of the line, time or `MISSING`) behind ``<190>Nov 23 18:29:55 edge nginx: `` or RFC 5424's head."""
    at = start + 1
    while at < end and 48 <= byte_at(buffer, at) <= 57:
        at += 1
    if at >= end or at == start + 1 or byte_at(buffer, at) != 62:
        return start, np.int64(MISSING)
    at += 1
    limit = min(end, start + _PREFIX_BYTES_MAX)
    if byte_at(buffer, at) == 49 and byte_at(buffer, at + 1) == SPACE:
        stop = find_space(buffer, at + 2, limit)
        moment = iso_kernel(buffer, at + 2, stop, state)
        for _ in range(4):  # host, program, process, message id
            stop = find_space(buffer, stop + 1, limit)
        if stop + 3 <= limit and byte_at(buffer, stop + 1) == 45 and byte_at(buffer, stop + 2) == SPACE:
            return stop + 3, moment
        return start, np.int64(MISSING)
    while at + 1 < limit:
        if byte_at(buffer, at) == 58 and byte_at(buffer, at + 1) == SPACE:
            return at + 2, np.int64(MISSING)
        at += 1
    return start, np.int64(MISSING)


@part
def strip_prefix_kernel(buffer: Any, start: Any, end: Any, state: Any) -> Any:
    """(start of the line, time or `MISSING`) behind what a shipper put before it.

    Known: Logstash's ``TIME HOST ``, a container runtime's ``TIME stdout F ``, syslog's head.
    """
    if end - start < 27:
        return start, np.int64(MISSING)
    if byte_at(buffer, start) == 60:
        return _syslog_kernel(buffer, start, end, state)
    if byte_at(buffer, start + 4) != 45 or byte_at(buffer, start + 10) != 84:
        return start, np.int64(MISSING)
    limit = min(end, start + _PREFIX_BYTES_MAX)
    stop = find_space(buffer, start, limit)
    moment = iso_kernel(buffer, start, stop, state)
    if moment < 0 or stop >= limit:
        return start, np.int64(MISSING)
    at = stop + 1
    if byte_at(buffer, at) == 123:
        return at, moment
    stop = find_space(buffer, at, limit)
    if stop + 2 >= limit:
        return start, np.int64(MISSING)
    if _is_word_kernel(buffer, at, stop, _STDOUT) or _is_word_kernel(buffer, at, stop, _STDERR):
        if byte_at(buffer, stop + 2) == SPACE:
            return stop + 3, moment
        return stop + 1, moment
    if byte_at(buffer, stop + 1) == 45 and byte_at(buffer, stop + 2) == SPACE:
        return at, moment  # no host: "- " is already the client's ident
    return stop + 1, moment


@part
def _peer_start_kernel(buffer: Any, start: Any, end: Any) -> Any:
    """Where the address of ``(APIServer pid=1) INFO:     203.0.113.7:51408`` begins."""
    at = start
    if at < end and byte_at(buffer, at) == 40:
        while at < end and byte_at(buffer, at) != 41:
            at += 1
        at += 2
    first = at
    while at < end and at - first < 10 and 65 <= byte_at(buffer, at) <= 90:
        at += 1
    if at > first and at < end and byte_at(buffer, at) == 58:
        at += 1
        while at < end and byte_at(buffer, at) == SPACE:
            at += 1
        return at
    return first


@part
def _virtual_host_kernel(buffer: Any, start: Any, first: Any, end: Any) -> Any:
    """(ok, high, low, its end) when the second word is an address and ident and user still follow: ``host:443 1.2.3.4 - -``."""
    second = find_space(buffer, first + 1, end)
    third = find_space(buffer, second + 1, end)
    if second >= end or third >= end:
        return False, _ZERO, _ZERO, first
    ok, high, low = parse_address_kernel(buffer, first + 1, second)
    return ok, high, low, second


@inlined
def _quoted_value(buffer: Any, at: Any, end: Any, state: Any) -> Any:
    """The value of ``"…"`` whose quote stands at ``at``: (start, end, position after the quote, reason); ``-`` is missing."""
    start = at + 1
    close = find_quote(buffer, start, end)
    escapes = False
    if close < end and byte_at(buffer, close) == BACKSLASH:
        escapes = True
        close = _escaped_quote_kernel(buffer, close, end)
    if close >= end:
        state[STOPPED_AT] = at
        return start, start, end, TRUNCATED
    stop = close
    if escapes:
        start, stop, reason = unescape_value_kernel(buffer, start, stop, state, LOG_ESCAPES)
        if reason != OK:
            state[STOPPED_AT] = at
            return start, start, close + 1, reason
    elif close == start + 1 and byte_at(buffer, start) == 45:
        stop = start
    return start, stop, close + 1, OK


@inlined
def _status_and_bytes(buffer: Any, at: Any, end: Any, state: Any) -> Any:
    """`` 200 1532`` at ``at``: (status, bytes, position after them, reason)."""
    head, word = word_at(buffer, at), word_at(buffer, at + 5)
    width = digit_run(word)
    after = at + 5 + width
    usual = head & _BLANKS == _TWO_BLANKS and digit_run(head >> np.uint64(8)) == 3 and 0 < width < 8 and after < end
    if usual and byte_at(buffer, after) == SPACE:
        status = digits_value(head >> np.uint64(8), 3)
        if 100 <= status <= 599:
            return status, digits_value(word, width), after, OK
    return _any_status_and_bytes_kernel(buffer, at, end, state)


@part
def _any_status_and_bytes_kernel(buffer: Any, at: Any, end: Any, state: Any) -> Any:
    """`_status_and_bytes` of what may be missing, longer or wrong."""
    missing = np.int64(MISSING)
    state[STOPPED_AT] = at
    if at + 1 >= end:
        return missing, missing, at, TRUNCATED
    if byte_at(buffer, at) != SPACE:
        return missing, missing, at, NOT_A_RECORD
    at += 1
    status = np.int64(0)
    width = 0
    while at < end and width <= _DIGITS_MAX and 48 <= byte_at(buffer, at) <= 57:
        status = status * 10 + byte_at(buffer, at) - 48
        at += 1
        width += 1
    if width == 0:
        if byte_at(buffer, at) != 45 or (at + 1 < end and byte_at(buffer, at + 1) != SPACE):
            return missing, missing, at, BAD_STATUS
        at += 1
    elif status != 0 and (status < 100 or status > 599):
        return missing, missing, at, BAD_STATUS
    elif at < end and byte_at(buffer, at) != SPACE:
        return missing, missing, at, BAD_STATUS
    if status == 0:
        status = missing
    if at + 1 >= end:
        return status, missing, at, OK
    first = at + 1
    at = first
    size = np.int64(0)
    while at < end and at - first <= _DIGITS_MAX and 48 <= byte_at(buffer, at) <= 57:
        size = size * 10 + byte_at(buffer, at) - 48
        at += 1
    width = at - first
    negative = width == 0 and byte_at(buffer, at) == 45 and at + 1 < end and 48 <= byte_at(buffer, at + 1) <= 57
    if size > NUMBER_MAX or width > _DIGITS_MAX or negative:
        state[STOPPED_AT] = first
        return status, missing, at, BAD_NUMBER
    if width == 0 or (at < end and byte_at(buffer, at) != SPACE):
        size = missing
        at = find_space(buffer, at, end)
    return status, size, at, OK


@part
def _time_before_kernel(buffer: Any, start: Any, quote: Any, state: Any) -> Any:
    """(time, position of the opening bracket) of a time in brackets that is not 26 bytes long; -1 when there is none."""
    at = quote - 3
    while at > start and quote - at < _BRACKET_BACK and byte_at(buffer, at) != 91:
        at -= 1
    if byte_at(buffer, at) != 91:
        return np.int64(-1), np.int64(-1)
    return parse_time_kernel(buffer, at + 1, quote - 2, state), at


@part
def _any_client_kernel(buffer: Any, start: Any, end: Any) -> Any:
    """(ok, high, low, end of the address, end of the virtual host before it) of the client that begins the line."""
    space = find_space(buffer, start, end)
    ok, high, low = parse_address_kernel(buffer, start, space)
    if ok or space >= end:
        return ok, high, low, space, start
    ok, high, low, second = _virtual_host_kernel(buffer, start, space, end)
    if not ok:
        return ok, high, low, space, start
    return ok, high, low, second, without_port(buffer, start, space)


@part
def decode_line_kernel(
    buffer: Any, start: Any, end: Any, row: Any, given_ms: Any, bound_ms: Any, state: Any, cells: Any, spans: Any
) -> Any:
    """Decode ``buffer[start:end]`` into ``row``; the reason why not, or OK.

    ``given_ms`` is the time of the envelope (`MISSING` without one); it and then ``bound_ms`` stand in for a line that has
    no time of its own. On failure STOPPED_AT says where.
    """
    quote = find_raw_quote(buffer, start, end)
    if quote >= end or quote - start < 4:
        state[STOPPED_AT] = start
        return NOT_A_RECORD
    ok = False
    high = low = _ZERO
    host_end = user_start = user_end = start
    timed = byte_at(buffer, quote - 1) == SPACE and byte_at(buffer, quote - 2) == 93
    if timed:
        bracket = quote - 29
        if bracket > start and byte_at(buffer, bracket) == 91:
            time_ms = clf_ms(buffer, bracket + 1, state)
        else:
            time_ms, bracket = _time_before_kernel(buffer, start, quote, state)
        if time_ms < 0 or bracket <= start:
            state[STOPPED_AT] = quote
            return NOT_A_RECORD if bracket <= start else BAD_TIME
        left = bracket - 1
        value, space = parse_v4(buffer, start, left)
        if value >= 0 and space < left and byte_at(buffer, space) == SPACE:
            ok, low = True, V4_PREFIX | np.uint64(value)
        else:
            ok, high, low, space, host_end = _any_client_kernel(buffer, start, left)
        if left - space != 4 or word_at(buffer, space) & _FIVE_BYTES != _NOBODY:
            user_start = find_space(buffer, space + 1, left) + 1
            user_end = left
            if user_end - user_start == 1 and byte_at(buffer, user_start) == 45:
                user_end = user_start
    elif byte_at(buffer, quote - 1) == SPACE and byte_at(buffer, quote - 2) == 45 and byte_at(buffer, quote - 3) == SPACE:
        peer = _peer_start_kernel(buffer, start, quote - 3)
        ok, high, low = parse_peer_kernel(buffer, peer, quote - 3)
        time_ms = given_ms if given_ms >= 0 else bound_ms
        if find_space(buffer, peer, quote - 3) < quote - 3 or peer >= quote - 3:
            state[STOPPED_AT] = start
            return NOT_A_RECORD
        if time_ms < 0 or time_ms >= TIME_MS_MAX:
            state[STOPPED_AT] = start
            return BAD_TIME
    else:
        state[STOPPED_AT] = quote
        return NOT_A_RECORD

    request_start, request_end, at, reason = _quoted_value(buffer, quote, end, state)
    if reason != OK:
        return reason
    status, size, at, reason = _status_and_bytes(buffer, at, end, state)
    if reason != OK:
        return reason
    referrer_start = referrer_end = agent_start = agent_end = start
    forwarded_start = forwarded_end = start
    if timed and at + 1 < end and byte_at(buffer, at) == SPACE and byte_at(buffer, at + 1) == QUOTE:
        referrer_start, referrer_end, at, reason = _quoted_value(buffer, at + 1, end, state)
        if reason != OK:
            return reason
        if at + 1 < end and byte_at(buffer, at) == SPACE and byte_at(buffer, at + 1) == QUOTE:
            agent_start, agent_end, at, reason = _quoted_value(buffer, at + 1, end, state)
            if reason != OK:
                return reason
            if state[PROXY_DEPTH] > 0 and at + 1 < end and byte_at(buffer, at) == SPACE and byte_at(buffer, at + 1) == QUOTE:
                forwarded_start, forwarded_end, at, reason = _quoted_value(buffer, at + 1, end, state)
                if reason != OK:
                    return reason
    source = SOURCE_CONNECTION
    if state[PROXY_DEPTH] > 0:
        ok, high, low = forwarded_address_kernel(buffer, forwarded_start, forwarded_end, state[PROXY_DEPTH])
        source = SOURCE_FORWARDED

    time_ms, replaced = bounded_time(time_ms, bound_ms, state)
    flags = status_flags(status)
    mask = np.int64(1 << N_TIME)
    if replaced:
        flags |= F_TIME_REPLACED
        mask |= np.int64(1) << REPLACED_SHIFT
    if ok:
        flags |= F_HAS_IP
        mask |= np.int64(source) << SOURCE_SHIFT
    cells[N_TIME, row] = time_ms
    cells[N_FLAGS, row] = flags
    cells[CELL_HIGH, row] = np.int64(high if ok else _ZERO)
    cells[CELL_LOW, row] = np.int64(low if ok else _ZERO)
    mask |= put_number(cells, row, N_STATUS, status)
    mask |= put_number(cells, row, N_BYTES, size)
    method_end, path_start, path_end = split_request(buffer, request_start, request_end)
    if path_end > path_start and byte_at(buffer, path_start) != 47:
        path_start, _, _ = path_kernel(buffer, path_start, path_end)
    mask |= put_text(spans, row, T_METHOD, request_start, method_end)
    mask |= put_text(spans, row, T_PATH, path_start, path_end)
    mask |= put_text(spans, row, T_USER_AGENT, agent_start, agent_end)
    mask |= put_text(spans, row, T_REFERRER, referrer_start, referrer_end)
    mask |= put_text(spans, row, T_HOST, start, host_end)
    mask |= put_text(spans, row, T_USER_NAME, user_start, user_end)
    cells[CELL_MASK, row] = mask
    return OK
