"""What a command does with errors: one line and an exit code; a stack trace only for developers."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from schemas.errors import BrokerError, FloodwallError

EXIT_ENDED_EARLY = 5
EXIT_BUG = 70
EXIT_INTERRUPTED = 130
DEBUG = "FLOODWALL_DEBUG"
_KAFKA_PACKAGES = ("confluent_kafka", "aiokafka", "faust")
"""An installation that only reads files does without them."""

Arguments = ParamSpec("Arguments")


def guarded(command: Callable[Arguments, int]) -> Callable[Arguments, None]:
    """Run a command whose result is its exit code."""

    @functools.wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            code = command(*args, **kwargs)
        except FloodwallError as error:
            print(f"floodwall: {error}", file=sys.stderr)
            code = error.exit_code
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
        except BrokenPipeError:  # whoever read our output has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _KAFKA_PACKAGES:
                print(f"floodwall: expected the package {error.name}, got none: pip install 'floodwall[kafka]'", file=sys.stderr)
                raise typer.Exit(BrokerError.exit_code) from None
            if os.environ.get(DEBUG):
                raise
            text = f"floodwall: a fault of Floodwall, not of yours: {type(error).__name__}: {error}"
            print(f"{text} (run again with {DEBUG}=1 and send us what it prints)", file=sys.stderr)
            code = EXIT_BUG
        raise typer.Exit(code)

    return run
