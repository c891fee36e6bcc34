"""What an event adds to which keys, in plain Python."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

ASSETS = (
    "css", "js", "mjs", "map", "png", "jpg", "jpeg", "gif", "svg", "ico", "webp", "avif", "bmp", "xbm", "woff", "woff2", "ttf",
    "otf", "eot", "mp3", "mp4", "webm", "wav", "mpg", "avi", "pdf",
)  # fmt: skip
HEXADECIMAL = re.compile(r"[0-9a-fA-F-]{8,}")


def path_of(target: str) -> str:
    """Without query and fragment."""
    return re.split(r"[?#]", target, maxsplit=1)[0]


def is_asset(target: str) -> bool:
    """Does the last part of the path end in the extension of a static asset?"""
    name = path_of(target).rpartition("/")[2]
    return "." in name and name.rpartition(".")[2].lower() in ASSETS


def is_id(segment: str) -> bool:
    """All digits; eight or more hexadecimal characters or hyphens with a digit; or long with a digit."""
    if not re.search(r"[0-9]", segment):
        return False
    return segment.isdigit() or HEXADECIMAL.fullmatch(segment) is not None or len(segment) >= 24


def route_of(method: str, target: str) -> str:
    """``METHOD /path/{id}``."""
    folded = "/".join("{id}" if is_id(part) else part for part in path_of(target).split("/"))
    return f"{method} {folded}"


def flags_of(event: dict[str, Any]) -> tuple[bool, bool, bool, bool]:
    """(denied, failed authentication, cancelled, authenticated)."""
    status = event["status"]
    denied = bool(event.get("denied")) or status in (429, 503)
    failed = bool(event.get("auth_failed")) or status in (401, 403)
    cancelled = bool(event.get("cancelled")) or status == 499
    return denied, failed, cancelled, bool(event.get("api_key_hash") or event.get("account"))


def measures_of(event: dict[str, Any]) -> dict[str, int]:
    """Everything but evidence."""
    status = event["status"]
    denied, failed, cancelled, _ = flags_of(event)
    return {
        "requests": 1,
        "non_asset": int(not is_asset(event["path"])),
        "client_errors": int(400 <= status < 500 and not (denied or failed or cancelled or is_asset(event["path"]))),
        "auth_failures": int(failed and not denied),
        "server_errors": int(status >= 500 and not denied),
        "own_denials": int(denied),
        "cancelled": int(cancelled),
        "duration_ms": event.get("duration_ms", 0),
        "bytes": event.get("bytes", 0),
        "tokens_in": event.get("tokens_in", 0),
        "tokens_out": event.get("tokens_out", 0),
        "login_failures": int(failed and not (denied or is_asset(event["path"]) or "api_key_hash" in event)),
        "max_tokens": event.get("max_tokens", 0) * (status < 500 and not denied),
        "cost_micro": event.get("cost_micro", 0),
        "registrations": int(event.get("event") == "registration"),
        "busy_ms": min(event.get("duration_ms", 0), 60_000),
        "wasted_tokens": event.get("tokens_in", 0) * cancelled,
        "listed": int("nikto" in event.get("user_agent", "").lower()),
    }


def evidence_of(event: dict[str, Any], profile: str) -> tuple[bool, bool]:
    """(against addresses and what is like them, against keys, accounts, routes and services)."""
    denied, failed, _, authenticated = flags_of(event)
    if denied or is_asset(event["path"]):
        return False, False
    innocent = profile == "api" and authenticated and not failed and not 400 <= event["status"] < 500
    return not innocent, True


def keys_of(event: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """Dimension -> (key, is the evidence that against addresses)."""
    keys = {"service": (event.get("host") or "default", False), "route": (route_of(event["method"], event["path"]), False)}
    if "client_ip" in event:
        address = ipaddress.ip_address(event["client_ip"])
        if address.version == 4:
            keys["ip"] = str(address), True
            keys["net"] = str(ipaddress.ip_network(f"{address}/24", strict=False)), True
        else:
            keys["ip"] = str(ipaddress.ip_network(f"{address}/64", strict=False)), True
            keys["net"] = str(ipaddress.ip_network(f"{address}/48", strict=False)), True
    for dimension in ("country", "user_agent", "fingerprint", "asn"):
        if dimension in event:
            keys[dimension] = str(event[dimension]), True
    _, failed, _, _ = flags_of(event)
    if not failed:  # who fails to authenticate is no state for whom they name
        for dimension, field in (("api_key", "api_key_hash"), ("account", "account"), ("email_domain", "email_domain")):
            if field in event:
                keys[dimension] = event[field], False
    return keys
