"""Places where a test can kill the process: at the moments that matter, which chance alone rarely hits.

Off unless the environment variable FLOODWALL_FAILPOINT names one as ``name:count``: the process then dies, as by kill -9, when
it passes that place for the count-th time. It is read once; without it, a failpoint is one comparison.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "FLOODWALL_FAILPOINT"
NAMES = (
    "observe.decoded", "observe.begun", "observe.sending", "observe.sent", "observe.offsets", "observe.committing",
    "observe.committed", "observe.taking_over", "observe.fenced_predecessor", "judge.judged", "judge.sent",
    "judge.before_model", "judge.after_model", "judge.before_state", "judge.after_state", "judge.taking_over", "judge.rebuilt",
)  # fmt: skip
"""In the order in which a worker passes them."""


class Failpoints:
    """Those of one process."""

    def __init__(self, wanted: str | None) -> None:
        name, _, count = (wanted or "").partition(":")
        if name and name not in NAMES:
            raise ValueError(f"expected {VARIABLE} to name one of {', '.join(NAMES)}, got {name!r}")
        self._name = name
        self._left = int(count) if count.isdigit() else 1

    def passing(self, name: str) -> None:
        """Die here, if that is wanted."""
        if name != self._name:
            return
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


def failpoints_of_environment() -> Failpoints:
    """What the environment asks for: nothing, outside tests."""
    return Failpoints(os.environ.get(VARIABLE))
