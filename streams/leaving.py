"""Leaving the process: the one answer to everything unexpected, before anything is acknowledged.

Faust acknowledges a message whose agent raised, and loses it (tests/kafka/test_faust_on_a_broker.py). So no exception
reaches it: the process ends at once, without any of Faust's or Python's endings, and what it had not committed is read again
by whoever takes over.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

from aiokafka.errors import KafkaError

from schemas.errors import BrokerError, FloodwallError
from streams.logs import say

EXIT_BUG = 70


def leave(error: BaseException, during: str) -> NoReturn:
    """Say why in one line, and end the process with the error's exit code."""
    if isinstance(error, KafkaError | OSError | TimeoutError):  # the brokers' doing, or the network's
        error = BrokerError(f"expected the brokers to answer while {during}, got: {type(error).__name__}: {error}")
    code = error.exit_code if isinstance(error, FloodwallError) else EXIT_BUG
    say("leaving", logging.ERROR, during=during, error=type(error).__name__, text=error, exit_code=code)
    if os.environ.get("FLOODWALL_DEBUG"):
        logging.getLogger("floodwall").error("debug", exc_info=error)
    if isinstance(error, FloodwallError):
        print(f"floodwall: {error}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(code)
