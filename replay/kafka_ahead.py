"""Messages of one partition, fetched and laid out one piece ahead of whoever decodes them.

A piece is cut by bytes, not by messages: of envelopes of a hundred lines a thousand are 17 MB, which leave the caches before
they are decoded, and a minute of event time, for which the judge then waits with everything that it holds. Fetching runs in a
thread of its own: librdkafka holds no lock while it waits, the engine's kernels hold none while they work.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import numpy as np
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, Message

from schemas.columns import I64, U8

PIECE_BYTES = 1 << 20
"""What still lies in the cache when the decoder comes."""
AHEAD_BYTES_MAX = 128 << 20
"""Of the pieces of all partitions: each has one that is read and one that is filled. Where messages suddenly grow longer,
those that one call brought are held beside them: what the queue held and what came within `WAIT_S`."""
MESSAGES_MAX = 4096
"""Of one piece: enough that a call's fixed cost is nothing, and few enough that partitions stay in step."""
MESSAGES_FIRST = 64
"""Of the first piece, when nobody knows yet how long messages are."""
WAIT_S = 0.1
_ROOM = 16384
_NONE = np.zeros(0, np.int64)


@dataclass(slots=True)
class Piece:
    """Messages in the order of their offsets: message i is ``buffer[starts[i]:ends[i]]``."""

    buffer: U8
    starts: I64
    ends: I64
    times_ms: I64
    offsets: I64
    errors: list[Message]
    """What came that is no message."""
    passed: bool = False
    """What came goes on behind the end that was named."""

    @property
    def length(self) -> int:
        """Bytes of all messages."""
        return int(self.ends[-1]) if len(self.ends) else 0


class Ahead:
    """One partition's pieces.

    Args:
        consumer: assigned to the partition; nobody else calls it while a piece is asked for.
        position: the offset that it begins at.
        end: no message from this offset on is given, and none is waited for.
        bytes_max: of a piece, which holds at least one message.
    """

    def __init__(self, consumer: Consumer, position: int, end: int, bytes_max: int) -> None:
        self._consumer, self._position, self._end, self._bytes_max = consumer, position, end, bytes_max
        self.silent_s = 0.0
        """Waited for the next message so far, while it was asked for: not while other partitions had their turn."""
        self._thread = ThreadPoolExecutor(1, "fetch")
        self._pending: Future[Piece] | None = None
        self._messages = MESSAGES_FIRST
        self._left: list[Message] = []
        self._errors: list[Message] = []
        self._passed = False
        # The one is read while the other is filled.
        self._filled, self._read = (np.zeros(0, np.uint8) for _ in range(2))

    def ask(self) -> None:
        """Let the next piece be fetched. The piece before the last one is gone then."""
        assert self._pending is None
        if self._position < self._end:
            self._pending = self._thread.submit(self._fetch)

    def take(self) -> Piece:
        """The piece that was asked for; empty: nothing came."""
        if self._pending is None:
            self.ask()
        assert self._pending is not None
        pending, self._pending = self._pending, None
        return pending.result()

    def seek(self, position: int) -> None:
        """The consumer goes on elsewhere. Not while a piece is asked for."""
        assert self._pending is None
        self._position = position

    def close(self) -> None:
        """Wait until the consumer is no longer called."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._pending = None

    def _fetch(self) -> Piece:
        if not self._left:
            self._consume()
        if self._left:
            piece = self._lay_out(self._left)
            self._position = int(piece.offsets[-1]) + 1
            self._messages = min(MESSAGES_MAX, max(1, self._bytes_max * len(piece.starts) // max(piece.length, 1)))
            del self._left[: len(piece.starts)]
        else:
            piece = Piece(self._filled, _NONE, _NONE, _NONE, _NONE, [])
        if not self._left:
            piece.errors, piece.passed = self._errors, self._passed
        return piece

    def _consume(self) -> None:
        began_s = time.monotonic()
        came = self._consumer.consume(min(self._messages, self._end - self._position), WAIT_S)
        self._errors = []
        if any(map(Message.error, came)):
            self._errors = [message for message in came if message.error() is not None]
            came = [message for message in came if message.error() is None]
        self._passed = bool(came) and message_end(came) > self._end
        if self._passed:
            came = [message for message in came if (message.offset() or 0) < self._end]
        self._left = came
        self.silent_s = 0.0 if came else self.silent_s + time.monotonic() - began_s

    def _lay_out(self, messages: list[Message]) -> Piece:
        """As many of the messages as a piece may hold."""
        values = values_of(messages)
        ends = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
        if ends[-1] > self._bytes_max:
            count = max(1, int(np.searchsorted(ends, self._bytes_max, "right")))
            messages, values, ends = messages[:count], values[:count], ends[:count]
        data = b"".join(values)
        self._filled, self._read = self._read, self._filled
        if len(self._filled) < 2 * len(data) + _ROOM:
            self._filled = np.empty(3 * len(data) + _ROOM, np.uint8)
        self._filled[: len(data)] = np.frombuffer(data, np.uint8)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
        return Piece(self._filled, starts, ends, times_of(messages), offsets_of(messages), [])


# ``map`` calls methods of the type at a quarter of the price of bound ones: such calls are half of a message's cost.


def values_of(messages: list[Message]) -> list[bytes]:
    """Their values; of one that has none, nothing."""
    came = list(map(Message.value, messages))
    return [value or b"" for value in came] if None in came else cast(list[bytes], came)


def times_of(messages: list[Message]) -> I64:
    """i64[n]: the brokers' or producers' time in milliseconds; 0 where there is none."""
    stamps = map(Message.timestamp, messages)
    return np.fromiter([0 if kind == TIMESTAMP_NOT_AVAILABLE else ms for kind, ms in stamps], np.int64, len(messages))


def offsets_of(messages: list[Message]) -> I64:
    """i64[n], of at least one."""
    first, behind = messages[0].offset() or 0, message_end(messages)
    if behind - first == len(messages):
        return np.arange(first, behind, dtype=np.int64)
    # Compacted, or with markers of transactions between.
    return np.fromiter((message.offset() or 0 for message in messages), np.int64, len(messages))


def message_end(messages: list[Message]) -> int:
    """The offset after the last of them."""
    return (messages[-1].offset() or 0) + 1
