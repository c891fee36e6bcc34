"""Which JSON path means what, as a table of words and as the trie that the scanner walks.

A path is the keys from the record's top joined by dots; a dotted key (``"source.ip"``) and nested objects are the same
path. Names are compared exactly, case included: ``ClientIP`` is Cloudflare's resolved address, ``clientip`` is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from schemas.columns import I64, U8
from schemas.decoding.layout import PRIORITY_SHIFT, UNIT_BIAS, UNIT_SHIFT, Slot
from schemas.errors import ConfigError

MS, SECONDS, MICROSECONDS, NANOSECONDS, MICRO = 0, 3, -3, -6, 6
"""Powers of ten that bring a value to milliseconds, or a cost to millionths."""
SOFT = 1
"""Unit of a status that may be some other code: what is none is missing, not poison."""
HEADER = 1
"""Unit of a key that the client sent: it is always hashed, whatever it looks like."""

# Earlier words are stronger within their slot. The products that use a path are in docs/formats.md.
_WORDS: tuple[tuple[Slot, int, str], ...] = (
    (Slot.TIME, 0, "time EdgeEndTimestamp endTime end_time event.end completed_at msec time_iso8601 @timestamp timestamp"),
    (Slot.TIME, 0, "ts time_local requestTime time_ms timestamp_ms eventTime date"),
    (Slot.START_TIME, 0, "start_time started_at startTime EdgeStartTimestamp event.start StartUTC"),
    (Slot.DURATION, MS, "duration_ms latencies.request latency_ms request_time_ms response_time_ms elapsed_ms"),
    (Slot.DURATION, SECONDS, "request_time duration_s httpRequest.latency response_time"),
    (Slot.DURATION, NANOSECONDS, "event.duration Duration"),
    (Slot.DURATION, MS, "duration latency"),
    (Slot.STATUS, 0, "status status_code response_code http.response.status_code response.status EdgeResponseStatus"),
    (Slot.STATUS, 0, "httpRequest.status DownstreamStatus statusCode http_status"),
    (Slot.STATUS, SOFT, "code error_information.error_code"),
    (Slot.BYTES, 0, "bytes body_bytes_sent bytes_sent size http.response.body.bytes http.response.bytes response.size"),
    (Slot.BYTES, 0, "EdgeResponseBytes httpRequest.responseSize DownstreamContentSize responseLength response_size"),
    (Slot.TOKENS_IN, 0, "tokens_in prompt_tokens usage.prompt_tokens ai.proxy.usage.prompt_tokens input_tokens"),
    (Slot.TOKENS_IN, 0, "ai.ai-proxy.usage.prompt_tokens usage.input_tokens gen_ai.usage.input_tokens llm_prompt_tokens"),
    (Slot.TOKENS_OUT, 0, "tokens_out completion_tokens usage.completion_tokens ai.proxy.usage.completion_tokens"),
    (Slot.TOKENS_OUT, 0, "ai.ai-proxy.usage.completion_tokens output_tokens usage.output_tokens gen_ai.usage.output_tokens"),
    (Slot.TOKENS_OUT, 0, "llm_completion_tokens"),
    (Slot.TOKENS_CACHED, 0, "tokens_cached cached_tokens usage.prompt_tokens_details.cached_tokens"),
    (Slot.TOKENS_CACHED, 0, "usage.cache_read_input_tokens cache_read_input_tokens"),
    (Slot.TOKENS_CACHED, 0, "metadata.usage_object.prompt_tokens_details.cached_tokens"),
    (Slot.MAX_TOKENS, 0, "max_tokens max_completion_tokens model_parameters.max_tokens request.max_tokens"),
    (Slot.MAX_TOKENS, 0, "model_parameters.max_completion_tokens gen_ai.request.max_tokens"),
    (Slot.COST, 0, "cost_micro"),
    (Slot.COST, MICRO, "cost response_cost ai.proxy.usage.cost ai.ai-proxy.usage.cost cost_usd"),
    (Slot.ASN, 0, "asn ClientASN source.as.number client.as.number"),
    (Slot.REMOTE_ADDR, 0, "remote_addr downstream_remote_address source.ip client.ip source.address client.address"),
    (Slot.REMOTE_ADDR, 0, "remote_ip client remote clientip ip httpRequest.remoteIp httpRequest.clientIp ClientHost"),
    (Slot.REMOTE_ADDR, 0, "request.remote_ip client_addr src_ip sourceIPAddress"),
    (Slot.CLIENT_IP, 0, "client_ip requester_ip_address metadata.requester_ip_address request.client_ip"),
    (Slot.CF_CONNECTING_IP, 0, "ClientIP"),
    (Slot.X_FORWARDED_FOR, 0, "x_forwarded_for x-forwarded-for http_x_forwarded_for request.headers.x-forwarded-for"),
    (
        Slot.X_FORWARDED_FOR,
        0,
        "X-Forwarded-For request.headers.X-Forwarded-For headers.x-forwarded-for request_X-Forwarded-For",
    ),
    (Slot.METHOD, 0, "method request_method http.request.method request.method ClientRequestMethod httpMethod verb"),
    (Slot.METHOD, 0, "httpRequest.requestMethod httpRequest.httpMethod RequestMethod"),
    (Slot.PATH, 0, "x-envoy-origin-path x-envoy-original-path path uri request_uri url.original request.uri"),
    (Slot.PATH, 0, "ClientRequestURI RequestPath httpRequest.uri request_path metadata.user_api_key_request_route url.path"),
    (Slot.URL, 0, "url request.url httpRequest.requestUrl url.full"),
    (Slot.REQUEST, 0, "request request_line"),
    (Slot.USER_AGENT, 0, "user_agent user-agent user_agent.original http_user_agent agent userAgent ClientRequestUserAgent"),
    (Slot.USER_AGENT, 0, "request.headers.user-agent request.headers.User-Agent httpRequest.userAgent request_User-Agent"),
    (Slot.USER_AGENT, 0, "headers.user-agent"),
    (Slot.API_KEY_HASH, 0, "api_key_hash api_key_fingerprint key_hash metadata.user_api_key_hash user_api_key_hash"),
    (Slot.API_KEY_HASH, 0, "api_key_id key_id authenticated_entity.id"),
    (Slot.API_KEY, 0, "api_key apikey"),
    (Slot.API_KEY, HEADER, "x-api-key x_api_key http_x_api_key request.headers.x-api-key request.headers.apikey"),
    (Slot.API_KEY, HEADER, "request.headers.api-key authorization http_authorization request.headers.authorization"),
    (Slot.API_KEY, HEADER, "Authorization request.headers.Authorization headers.x-api-key headers.authorization"),
    (Slot.ACCOUNT, 0, "account account_id consumer.username consumer.id consumer metadata.user_api_key_org_id"),
    (Slot.ACCOUNT, 0, "metadata.user_api_key_team_id metadata.user_api_key_user_id tenant organization org_id user_id"),
    (Slot.HOST, 0, "http_host authority :authority ClientRequestHost request.headers.host request.host url.domain"),
    (Slot.HOST, 0, "RequestHost host vhost server_name"),
    (Slot.COUNTRY, 0, "country ClientCountry source.geo.country_iso_code client.geo.country_iso_code geoip_country_code"),
    (Slot.COUNTRY, 0, "geoip.country_code2 httpRequest.country"),
    (Slot.FINGERPRINT, 0, "fingerprint ja4 JA4 tls.client.ja4 tls.client.ja3 ja3 JA3Hash"),
    (Slot.EMAIL_DOMAIN, 0, "email_domain"),
    (Slot.EMAIL, 0, "email user.email"),
    (Slot.REFERRER, 0, "referrer referer http_referer http.request.referrer ClientRequestReferer"),
    (Slot.REFERRER, 0, "request.headers.referer httpRequest.referer"),
    (Slot.MODEL, 0, "model ai.proxy.meta.request_model ai.ai-proxy.meta.request_model request_model gen_ai.request.model"),
    (Slot.MODEL, 0, "ai.proxy.meta.response_model model_group request_llm_model"),
    (Slot.USER_NAME, 0, "user_name remote_user user user.name ClientUsername"),
    (Slot.REQUEST_ID, 0, "request_id x-request-id x_request_id request.id RayID http.request.id requestId id"),
    (Slot.MESSAGE, 0, "message log MESSAGE"),
    (Slot.EVENT, 0, "event event_type event.action type"),
    (Slot.REGISTRATION, 0, "registration"),
    (Slot.AUTH_FAILED, 0, "auth_failed"),
    (Slot.DENIED, 0, "denied"),
    (Slot.CANCELLED, 0, "cancelled"),
    (Slot.RESPONSE_FLAGS, 0, "response_flags"),
)

NAMES: dict[str, tuple[Slot, int]] = {slot.name.lower(): (slot, 0) for slot in Slot} | {
    "duration_ms": (Slot.DURATION, MS),
    "duration_s": (Slot.DURATION, SECONDS),
    "duration_us": (Slot.DURATION, MICROSECONDS),
    "duration_ns": (Slot.DURATION, NANOSECONDS),
    "duration": (Slot.DURATION, MS),
    "cost": (Slot.COST, MICRO),
    "cost_micro": (Slot.COST, 0),
}
"""What ``Input.fields`` may map a path to, and its unit; `IGNORE` besides."""
IGNORE = "ignore"
SEGMENT_BYTES_MAX = 64
"""Longer keys are never ours."""

# Columns of `Trie.nodes` and `Trie.edges`.
NODE_SLOT, NODE_INFO, NODE_CHILDREN = range(3)
NODE_WORDS, EDGE_WORDS = 3, 4
EDGE_PARENT, EDGE_START, EDGE_LENGTH, EDGE_CHILD = range(4)
NONE = -1


class Trie(NamedTuple):
    """The known paths. Node 0 is the top of a record."""

    nodes: I64
    """i64[nodes, 3]: the slot of a value here or `NONE`, its priority and unit packed as in a slot's info, has it children."""
    edges: I64
    """i64[size, 4]: an open-addressing table from (parent, name) to child; an empty row has parent `NONE`."""
    names: U8
    """The bytes of all names."""


def hash_segment(parent: int, segment: bytes) -> int:
    """Where the search for an edge begins; the scanner computes the same."""
    value = (parent * 0x9E3779B97F4A7C15 + 0xCBF29CE484222325) & (2**64 - 1)
    for byte in segment:
        value = ((value ^ byte) * 0x100000001B3) & (2**64 - 1)
    return value >> 32


def meanings(extra: dict[str, str]) -> dict[str, tuple[Slot, int, int]]:
    """Path -> (slot, priority, unit): our own words, and the operator's, which are stronger.

    Raises:
        ConfigError: an extra path is empty or cannot be a key, or its field is none of ours.
    """
    table: dict[str, tuple[Slot, int, int]] = {}
    for priority, (slot, unit, words) in enumerate(_WORDS):
        for offset, path in enumerate(words.split()):
            if path in table:
                raise AssertionError(f"{path} has two meanings")
            table[path] = (slot, 64 + 16 * priority + offset, unit)
    for index, (path, field) in enumerate(extra.items()):
        segments = path.encode().split(b".")
        if any(not 0 < len(segment) <= SEGMENT_BYTES_MAX for segment in segments) or _unwritable(path) or len(segments) > 16:
            raise ConfigError(f"expected a dotted JSON path of keys without quotes at `$.input.fields`, got {path!r}")
        if field == IGNORE:
            table.pop(path, None)
        elif field in NAMES:
            slot, unit = NAMES[field]
            table[path] = (slot, min(index, 63), unit)
        else:
            known = ", ".join(sorted([*NAMES, IGNORE]))
            raise ConfigError(f"expected one of {known} at `$.input.fields[{path!r}]`, got {field!r}")
    return table


def _unwritable(path: str) -> bool:
    return any(character in '"\\' or ord(character) < 32 for character in path)


def build_trie(table: dict[str, tuple[Slot, int, int]]) -> Trie:
    """The trie of a table of `meanings`."""
    children: dict[tuple[int, bytes], int] = {}
    nodes = [[NONE, 0, 0]]
    for path, (slot, priority, unit) in table.items():
        node = 0
        for segment in path.encode().split(b"."):
            nodes[node][NODE_CHILDREN] = 1
            if (node, segment) not in children:
                children[node, segment] = len(nodes)
                nodes.append([NONE, 0, 0])
            node = children[node, segment]
        nodes[node][NODE_SLOT] = int(slot)
        nodes[node][NODE_INFO] = _packed(priority, unit)
    return _tabulate(nodes, children.items())


def _packed(priority: int, unit: int) -> int:
    return (priority << PRIORITY_SHIFT) | ((unit + UNIT_BIAS) << UNIT_SHIFT)


def _tabulate(nodes: list[list[int]], children: Iterable[tuple[tuple[int, bytes], int]]) -> Trie:
    children = list(children)
    size = 1024
    while size < 4 * len(children):  # sparse, so that a name that is none of ours soon meets an empty row
        size *= 2
    edges = np.full((size, 4), NONE, np.int64)
    names = bytearray()
    for (parent, segment), child in children:
        at = hash_segment(parent, segment) & (size - 1)
        while edges[at, EDGE_PARENT] != NONE:
            at = (at + 1) & (size - 1)
        edges[at] = (parent, len(names), len(segment), child)
        names += segment
    return Trie(np.array(nodes, np.int64), edges, np.frombuffer(bytes(names) + bytes(64), np.uint8).copy())
