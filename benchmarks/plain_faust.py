"""A Faust agent as its documentation shows it, which only counts; the measure that observers are compared with."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import time
from typing import Any

import faust


async def count(bootstrap: str, topic: str, events: int) -> float:
    """Seconds for ``events`` messages, from the first."""
    app = faust.App(
        f"plain-{time.monotonic_ns()}", broker=f"kafka://{bootstrap}", autodiscover=False, web_enabled=False,
        topic_disable_leader=True, topic_allow_declare=False, datadir=tempfile.mkdtemp(),
    )  # fmt: skip
    seen, began, done = 0, 0.0, asyncio.Event()

    async def agent(stream: Any) -> None:
        nonlocal seen, began
        async for _ in stream:
            if seen == 0:
                began = time.perf_counter()
            seen += 1
            if seen == events:
                done.set()

    app.agent(app.topic(topic, value_serializer="raw", internal=True), name="count")(agent)
    app.finalize()
    await app.start()
    await done.wait()
    took = time.perf_counter() - began
    await app.stop()
    return took


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(asyncio.run(count(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
