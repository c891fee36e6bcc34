"""A Faust agent as its documentation shows it, which only counts; the measure that observers are compared with."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import time
from typing import Any

import faust


async def count(bootstrap: str, topic: str, events: int) -> tuple[float, float]:
    """Seconds for ``events`` messages, from the first, and seconds of processor time."""
    app = faust.App(
        f"plain-{time.monotonic_ns()}", broker=f"kafka://{bootstrap}", autodiscover=False, web_enabled=False,
        topic_disable_leader=True, topic_allow_declare=False, datadir=tempfile.mkdtemp(),
    )  # fmt: skip
    seen, began, used, done = 0, 0.0, 0.0, asyncio.Event()

    async def agent(stream: Any) -> None:
        nonlocal seen, began, used
        async for _ in stream:
            if seen == 0:
                began, used = time.perf_counter(), time.process_time()
            seen += 1
            if seen == events:
                done.set()

    app.agent(app.topic(topic, value_serializer="raw", internal=True), name="count")(agent)
    app.finalize()
    await app.start()
    await done.wait()
    took = time.perf_counter() - began, time.process_time() - used
    await app.stop()
    return took


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(*asyncio.run(count(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
