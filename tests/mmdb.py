"""Writes small files in MaxMind's format: https://maxmind.github.io/MaxMind-DB/."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MARKER = b"\xab\xcd\xefMaxMind.com"
_STRING, _UINT16, _UINT32, _MAP, _UINT64, _ARRAY = 2, 5, 6, 7, 9, 11
_KINDS = {"node_count": _UINT32, "build_epoch": _UINT64}
"""Of the numbers of the metadata; all others are uint16, and readers insist."""


def encode(value: Any, kind: int = _UINT32) -> bytes:
    """A value of the data section; a number as ``kind``."""
    match value:
        case str():
            data = value.encode()
            return _control(_STRING, len(data)) + data
        case int():
            data = value.to_bytes((value.bit_length() + 7) // 8, "big")
            return _control(kind, len(data)) + data
        case dict():
            return _control(_MAP, len(value)) + b"".join(encode(key) + encode(inner) for key, inner in value.items())
        case list():
            return _control(_ARRAY, len(value)) + b"".join(map(encode, value))
    raise TypeError(f"expected text, a number, a map or a list, got {value!r}")


def _control(kind: int, size: int) -> bytes:
    assert size < 29 + 256
    first, more = (size, b"") if size < 29 else (29, bytes([size - 29]))
    return bytes([kind << 5 | first]) + more if kind <= 7 else bytes([first, kind - 7]) + more


def build(records: Mapping[str, Any], *, ip_version: int = 6, kind: str = "Test") -> bytes:
    """A file: prefixes that do not nest, and what it says of each."""
    nodes: list[list[int | None]] = [[None, None]]
    leaves: list[tuple[int, int, int]] = []
    data = b""
    for prefix, record in records.items():
        network = ipaddress.ip_network(prefix)
        above = 96 if network.version == 4 and ip_version == 6 else 0  # IPv4 lies at ::/96
        length = above + network.prefixlen
        bits = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
        at = 0
        for level in range(length - 1, -1, -1):
            side = bits >> level & 1
            if level == 0:
                leaves.append((at, side, len(data)))
                break
            following = nodes[at][side]
            if following is None:
                following = nodes[at][side] = len(nodes)
                nodes.append([None, None])
            at = following
        data += encode(record)
    tree = [[len(nodes) if side is None else side for side in node] for node in nodes]
    for at, side, offset in leaves:
        tree[at][side] = len(nodes) + 16 + offset
    metadata = {
        "binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": 1_790_000_000, "database_type": kind,
        "description": {"en": "for tests"}, "ip_version": ip_version, "languages": ["en"], "node_count": len(nodes),
        "record_size": 24,
    }  # fmt: skip
    return b"".join(side.to_bytes(3, "big") for node in tree for side in node) + bytes(16) + data + MARKER + _metadata(metadata)


def _metadata(values: dict[str, Any]) -> bytes:
    pairs = (encode(name) + encode(value, _KINDS.get(name, _UINT16)) for name, value in values.items())
    return _control(_MAP, len(values)) + b"".join(pairs)


def written(folder: Path, name: str, records: Mapping[str, Any], **options: Any) -> str:
    """The path of a file that was written."""
    path = folder / name
    path.write_bytes(build(records, **options))
    return str(path)
