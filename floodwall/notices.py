"""What happens while a command runs on and on: one line for each event."""

from __future__ import annotations

import sys
from collections.abc import Callable

from floodwall.tables import printable


def teller(who: str, *, as_json: bool) -> Callable[[str, dict[str, object]], None]:
    """Prints an event and its fields: for people on standard error, as JSON on standard output."""
    import orjson

    def tell(event: str, fields: dict[str, object]) -> None:
        if as_json:
            sys.stdout.buffer.write(orjson.dumps({"event": event, **fields}) + b"\n")
            sys.stdout.buffer.flush()
            return
        words = " ".join(f"{name}={printable(str(value))}" for name, value in fields.items())
        print(f"floodwall {who}: {event} {words}", file=sys.stderr, flush=True)

    return tell
