"""Where things lie in the one array of small numbers that the kernels share.

Everything a kernel needs besides the chunk and the columns is in ``state`` (i64[]): settings, what the last call counted,
the dates it remembers, the slots that hold the values of the event being read, the known paths and the learned keys. An
array is seven arguments to a compiled function, so one instead of ten keeps the calls between kernels cheap. The columns
come as two: ``cells`` (i64[CELLS, capacity]) and ``spans`` (i32[2 * TEXTS, capacity], starts and then lengths).
"""

from __future__ import annotations

from enum import IntEnum

from schemas.fields import NUMBERS, TEXTS

CELL_MASK, CELL_HIGH, CELL_LOW = NUMBERS, NUMBERS + 1, NUMBERS + 2
"""Rows of ``cells`` after the number columns: what the event carries as bits, and the halves of its address."""
CELLS = NUMBERS + 3


class Slot(IntEnum):
    """What a value in a JSON event can be. ``Input.fields`` names these in lower case (`schemas.decoding.paths`)."""

    TIME = 0  # when it completed
    START_TIME = 1
    DURATION = 2
    STATUS = 3
    BYTES = 4
    TOKENS_IN = 5
    TOKENS_OUT = 6
    TOKENS_CACHED = 7
    MAX_TOKENS = 8
    COST = 9
    ASN = 10
    REMOTE_ADDR = 11  # the connection's other end: a proxy, if there is one
    CLIENT_IP = 12  # the client, as a product we trust has already worked out
    X_FORWARDED_FOR = 13
    X_REAL_IP = 14  # only where the operator maps a path to it
    CF_CONNECTING_IP = 15  # Cloudflare's own word; as a header only where the operator maps it
    METHOD = 16
    PATH = 17
    REQUEST = 18  # a whole request line
    USER_AGENT = 19
    API_KEY_HASH = 20  # the gateway's own fingerprint
    API_KEY = 21  # in the clear: fingerprinted here
    ACCOUNT = 22
    HOST = 23
    COUNTRY = 24
    FINGERPRINT = 25
    EMAIL_DOMAIN = 26
    EMAIL = 27  # only its domain is kept
    REFERRER = 28
    MODEL = 29
    USER_NAME = 30
    REQUEST_ID = 31
    MESSAGE = 32  # an envelope's content
    EVENT = 33  # "registration"
    REGISTRATION = 34  # true or false, as the next three
    AUTH_FAILED = 35
    DENIED = 36
    CANCELLED = 37
    RESPONSE_FLAGS = 38  # Envoy's
    URL = 39  # absolute, weaker than PATH


SLOTS = 48
LEVELS_MAX = 32
"""Open objects and arrays; deeper nesting is poison."""
ENVELOPES_MAX = 3
"""A log line in a container's JSON in a shipper's JSON: more wrapping is not unwrapped."""
RECORD_EVENTS_MAX = 20_000
"""Events in one record."""
ADDRESS_SOURCES = 6
SEEN_WORDS = NUMBERS + TEXTS

# Settings.
PROXY_DEPTH, AHEAD_MS, RECORD_BYTES_MAX, FORMAT, SEED_0, SEED_1 = range(6)
FORMAT_AUTO, FORMAT_COMBINED, FORMAT_JSON = range(3)
# What the last call did.
ROWS, RECORDS, EMPTY, POISONED, TIME_REPLACED, POSITION = range(6, 12)
ARENA, ARENA_END = 12, 13  # the next free byte behind the chunk, and where this record must stop writing
SEEN_MASK, SEEN_RUN = 14, 15  # which columns the last event had, and how many events in a row had the same
DIRTY = 16  # columns written since they were last cleared, as bits
STOPPED_AT = 17  # where in the chunk the decoder stopped reading a poison record
ADDRESS_SOURCE = 18
SEEN = ADDRESS_SOURCE + ADDRESS_SOURCES
# What is remembered of neighbouring events: the bytes of a date or a second, and what they meant.
CLF_A, CLF_B, CLF_ZONE, CLF_MS, ISO_A, ISO_B, ISO_MS = range(SEEN + SEEN_WORDS, SEEN + SEEN_WORDS + 7)
CLF_TEXT, CLF_TEXT_MS = ISO_MS + 1, ISO_MS + 5  # four words of the last time in a log line, and what it meant
ISO_TEXT, ISO_TEXT_MS = CLF_TEXT_MS + 1, CLF_TEXT_MS + 4  # three words of the last ISO time up to its second
# The JSON scanner's memory of keys: how many, and where the table of paths lies.
ENTRIES, EDGES_AT, EDGES_SIZE = ISO_TEXT_MS + 1, ISO_TEXT_MS + 2, ISO_TEXT_MS + 3
# The open objects on the way to the key that is being read.
STACK = EDGES_SIZE + 1
# Values of the event being read: their spans, and how they were written.
SLOT_START = STACK + LEVELS_MAX + 1
SLOT_END = SLOT_START + SLOTS
SLOT_INFO = SLOT_END + SLOTS
ENTRIES_MAX = 512
"""Different keys remembered: a few record shapes of up to a hundred keys."""
BUCKETS = 2048
ENTRY_WORDS = 8
BUCKETS_AT = SLOT_INFO + SLOTS
ENTRIES_AT = BUCKETS_AT + BUCKETS
NODES_AT = ENTRIES_AT + ENTRIES_MAX * ENTRY_WORDS
"""From here on: the nodes of the trie of paths, then its edges."""

# The bytes of learned keys and, behind them, of the names in the paths (``texts``, u8[]).
KEY_BYTES = 128
"""Of an entry: bytes 0..31 of the key, their mask, bytes 32..63, their mask."""
KEY_LENGTH_MAX = 64
NAMES_AT = ENTRIES_MAX * KEY_BYTES

# Bits of a slot's info: how it was written, then its priority (lower wins) and its unit (a power of ten, biased).
STRING, BARE = 1, 2
PRIORITY_SHIFT, UNIT_SHIFT, UNIT_BIAS = 8, 24, 32
