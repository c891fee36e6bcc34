"""What a command does with errors: one line and an exit code; a stack trace only for developers."""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from schemas.errors import BrokerError, FloodwallError, SourceError

EXIT_EXCEEDED = 1
"""What a comparison was asked to fail on has come; see `floodwall diff`."""
EXIT_ENDED_EARLY = 5
EXIT_BUG = 70
EXIT_INTERRUPTED = 130
DEBUG = "FLOODWALL_DEBUG"
_KAFKA_PACKAGES = ("confluent_kafka", "aiokafka", "faust", "cryptography")
"""An installation that only reads files does without them."""
_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What the system says when standard output takes no more. Every file of ours reports for itself."""

Arguments = ParamSpec("Arguments")


def guarded(command: Callable[Arguments, int]) -> Callable[Arguments, None]:
    """Run a command whose result is its exit code."""

    @functools.wraps(command)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        raise typer.Exit(run_guarded(lambda: command(*args, **kwargs)))

    return run


def run_guarded(command: Callable[[], int]) -> int:
    """The exit code of ``command``, whatever happens in it."""
    try:
        code = command()
        sys.stdout.flush()
    except FloodwallError as error:
        print(f"floodwall: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read our output has had enough
        _discard_output()
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OUTPUT_ERRORS:
            print(f"floodwall: expected to write to standard output, got: {error.strerror}", file=sys.stderr)
            _discard_output()
            return SourceError.exit_code
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _KAFKA_PACKAGES:
            print(f"floodwall: expected the package {error.name}, got none: pip install 'floodwall[kafka]'", file=sys.stderr)
            return BrokerError.exit_code
        if os.environ.get(DEBUG):
            raise
        text = f"floodwall: a fault of Floodwall, not of yours: {type(error).__name__}: {error}"
        print(f"{text} (run again with {DEBUG}=1 and send us what it prints)", file=sys.stderr)
        return EXIT_BUG
    return code


def tell_of_compiling() -> None:
    """Say on standard error that the first run compiles, so that it does not look hung."""
    from schemas.compiled import tell_compiling

    text = "floodwall: compiling kernels, once: this takes up to a minute, and later runs start at once"
    tell_compiling(lambda: print(text, file=sys.stderr, flush=True))


def prepare_streams() -> None:
    """Make standard output and error usable whatever they are: names of files and excerpts of traffic may hold any byte.

    One that was closed before we began is opened to nowhere; else the next file we open would be taken for it.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            stream = os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
            setattr(sys, name, stream)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Let the interpreter's last flush of standard output go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
