"""What every test may rest on: the kernels are compiled, so that no command is slow or says so for being the first."""

from __future__ import annotations

import signal

import pytest

from drills.traffic import combined_lines, ndjson_lines
from tests.engines import config_of, decide

# Ended from outside, a run still stops what it started: brokers, workers, namespaces.
signal.signal(signal.SIGTERM, signal.default_int_handler)
# A shell starts what runs in its background with SIGINT ignored, and whatever that starts would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    for lines in (combined_lines, ndjson_lines):
        traffic = lines(seed=1, events=400, events_per_second=50)
        for early in (False, True):
            decide(traffic.data, int(traffic.times_ms[-1]) + 1000, config_of(), early=early)
