"""What every test may rest on: the kernels are compiled, so that no command is slow or says so for being the first."""

from __future__ import annotations

import fcntl
import signal
from pathlib import Path

import pytest

from drills.render import lines
from drills.run import START_S, Drill, Plan
from drills.traffic import combined_lines, ndjson_lines
from tests.engines import config_of, decide

# Ended from outside, a run still stops what it started: brokers, workers, namespaces.
signal.signal(signal.SIGTERM, signal.default_int_handler)
# A shell starts what runs in its background with SIGINT ignored, and whatever that starts would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    with Path(__file__).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other parts of `make pytest` wait, and then load what this one has compiled
        for lines_of in (combined_lines, ndjson_lines):
            traffic = lines_of(seed=1, events=400, events_per_second=50)
            for early in (False, True):
                decide(traffic.data, int(traffic.times_ms[-1]) + 1000, config_of(), early=early)
        # What learns of keys and registrations looks at minutes.
        drill = Drill(Plan(span_s=720, events_per_second=4.0, storms="none", attacks=("registrations_obvious",), at_s=(60,)))
        parts = [b"".join(lines(events, drill.world.actors, "events")) for events in drill.blocks(600)]
        decide(b"".join(parts), (START_S + 2000) * 1000, config_of({"profile": "api"}), early=True)
