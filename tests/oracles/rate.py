"""What `rate` must find, by brute force over all events at once."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from datetime import datetime

from detectors.rate import RateRule

LINE = re.compile(rb'(\S+) - - \[([^\]]+)\] "(\S+) ([^"]*) HTTP/1.1" (\d+) ')
ASSET = re.compile(rb"\.(js|css|webp|ico|png|jpg|svg|woff2)(\?|$)")


def address_findings(lines: list[bytes], rules: tuple[RateRule, ...], renew_s: int) -> set[tuple[str, str, int, int, int]]:
    """(address, measure, window, tick, observed) of every first crossing in a cell, for rules on IPv4 addresses."""
    counts: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    for line in lines:
        match = LINE.match(line)
        assert match is not None, line
        address, moment, _, path, status = match.groups()
        tick = int(datetime.strptime(moment.decode(), "%d/%b/%Y:%H:%M:%S %z").timestamp())
        name, code = address.decode(), int(status)
        if ":" in name:
            continue
        denied = code in (429, 503)
        counts[name, "requests"][tick] += 1
        counts[name, "evidence"][tick] += not denied and not ASSET.search(path)
        counts[name, "auth_failures"][tick] += code in (401, 403)
        counts[name, "client_errors"][tick] += 400 <= code < 500 and code not in (401, 403, 429, 499) and not ASSET.search(path)
        counts[name, "login_failures"][tick] += code in (401, 403) and not ASSET.search(path)
    found = set()
    for rule in rules:
        if rule.dimension != "ip":
            continue
        for (name, measure), ticks in counts.items():
            if measure != rule.measure:
                continue
            cells = set()
            for tick in sorted(ticks):
                observed = sum(ticks[tick - back] for back in range(rule.window_s) if tick - back in ticks)
                if observed > rule.limit and tick // renew_s not in cells:
                    cells.add(tick // renew_s)
                    found.add((name, measure, rule.window_s, tick, observed))
    return found
