"""The words of the product as numbers: dimensions, measures, and the columns of an event.

Kernels index arrays with these values, tallies carry them on the wire, and reports print their names. A value is never
reused for another meaning; new ones are added at the end (the tally's schema number covers the list).
"""

from __future__ import annotations

from enum import IntEnum


class Dimension(IntEnum):
    """What a count is kept for."""

    SERVICE = 0
    IP = 1  # an IPv4 address, or an IPv6 /64
    NET = 2  # an IPv4 /24, or an IPv6 /48
    ASN = 3
    COUNTRY = 4
    API_KEY = 5  # a fingerprint, never the key
    ACCOUNT = 6
    ROUTE = 7  # method and path, with ids folded
    USER_AGENT = 8
    FINGERPRINT = 9  # JA4
    EMAIL_DOMAIN = 10
    SIGNATURE = 11  # a conjunction of attributes: a target, never a key of rows

    @property
    def label(self) -> str:
        """The name in configuration and on the wire."""
        return self.name.lower()


class Measure(IntEnum):
    """What a tally adds up per tick, dimension and key. All are non-negative integers."""

    REQUESTS = 0
    NON_ASSET = 1  # requests that are not for a static asset
    CLIENT_ERRORS = 2  # 4xx, without auth failures, own denials, 499 and static assets: a page may link what is not there
    AUTH_FAILURES = 3  # 401 and 403, or the event's own word
    SERVER_ERRORS = 4  # 5xx without our own 503
    OWN_DENIALS = 5  # 429, 503 and what an edge of ours refused: never evidence
    CANCELLED = 6  # 499, or reset by the client
    DURATION_MS = 7
    BYTES = 8
    TOKENS_IN = 9
    TOKENS_OUT = 10
    LOGIN_FAILURES = 11  # of the auth failures, those for no asset that name no API key
    MAX_TOKENS = 12  # what requests asked for that we neither denied nor failed to answer (5xx)
    COST_MICRO = 13  # millionths of the currency unit
    EVIDENCE = 14  # requests that may be held against this key under the profile
    REGISTRATIONS = 15
    BUSY_MS = 16  # duration, of each request at most BUSY_MS_MAX: summed over a window it is concurrency
    LISTED = 17  # requests of a client that the detector ``known`` has on a list
    WASTED_TOKENS = 18  # input tokens of requests that the client cancelled

    @property
    def label(self) -> str:
        """The name in configuration and on the wire."""
        return self.name.lower()


class Item(IntEnum):
    """What a row keeps a set of, as a word of 64 hashed bins: sets of two tallies are united, bit by bit."""

    NET = 0  # networks (/24, /48)
    COUNTRY = 1
    FAILED_ROUTE = 2  # routes that answered with a client error or an auth failure
    USER_AGENT = 3
    ACCOUNT = 4  # accounts; where none is named, API keys

    @property
    def label(self) -> str:
        """The name in configuration and on the wire."""
        return self.name.lower()


class Number(IntEnum):
    """Integer columns of a batch (``i64[Number, n]``); a missing value is ``MISSING``."""

    TIME_MS = 0  # when the request completed, Unix milliseconds
    DURATION_MS = 1
    STATUS = 2
    BYTES = 3
    TOKENS_IN = 4
    TOKENS_OUT = 5
    TOKENS_CACHED = 6
    MAX_TOKENS = 7
    COST_MICRO = 8
    ASN = 9
    RECORD = 10  # index of the record (line, message) in the chunk that the event came from
    FLAGS = 11  # Flag bits


class Text(IntEnum):
    """Byte-string columns of a batch (offset and length into its buffer; length 0 is missing)."""

    METHOD = 0
    PATH = 1  # with query string, as logged
    USER_AGENT = 2
    API_KEY = 3  # a fingerprint
    ACCOUNT = 4
    HOST = 5  # the service
    COUNTRY = 6  # two letters
    FINGERPRINT = 7
    EMAIL_DOMAIN = 8
    REFERRER = 9
    MODEL = 10
    USER_NAME = 11
    REQUEST_ID = 12


class Flag(IntEnum):
    """Bits of ``Number.FLAGS``."""

    HAS_IP = 1
    AUTHENTICATED = 2  # the event names a key or account
    AUTH_FAILED = 4  # status 401 or 403, or the event says so
    REGISTRATION = 8  # an event of the registrations stream
    CANCELLED = 16  # the client went away (499, envoy DC, reset)
    OWN_DENIAL = 32  # 429, 503, or an explicit word of our own edge
    TIME_REPLACED = 64  # its clock was ahead of the record's bound
    VERIFICATION = 128  # an earlier account was verified: it is no request, and no measure counts it


class Poison(IntEnum):
    """Why a record could not be read. The name is the bounded ``reason`` in metrics and dead letters."""

    OK = 0
    EMPTY = 1  # nothing but white space (counted, not dead-lettered)
    TOO_LONG = 2
    NOT_A_RECORD = 3  # neither a log line nor a JSON object we know
    TRUNCATED = 4  # a JSON text or a quoted field without its end
    TOO_DEEP = 5
    BAD_TIME = 6  # missing, unreadable or out of 1970..2200 after the bound
    BAD_ADDRESS = 7  # an address that is none
    BAD_STATUS = 8  # not 100..599
    BAD_NUMBER = 9  # NaN, infinite, negative or not a number where one must be
    NOT_AN_EVENT = 10  # JSON without a time and any of address, path, key or account; a verification without an account
    BINARY = 11  # NUL bytes
    BAD_ESCAPE = 12


MISSING = -1
NUMBERS = len(Number)
TEXTS = len(Text)
MEASURES = len(Measure)
ITEMS = len(Item)
VALUES = MEASURES + ITEMS
"""What a row adds up, and then what it unites."""
COMMON = 16
"""Values before this one are always kept; those behind lie in a cache line of their own, for whoever wants one of them."""
BUSY_MS_MAX = 60_000
"""A longer request counts as busy for this long before it completed: it is told of at its end only, and all of it belongs to no
window of a minute."""
DIMENSIONS = int(Dimension.SIGNATURE)
"""Those that rows are kept for."""
