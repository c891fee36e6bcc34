"""How the decoders' kernels are compiled, said once and typed.

None of them allocates: without the runtime's reference counts on their array arguments, small kernels that call each other
cost what inlined code costs. `inlined` ones are inlined by LLVM, `spliced` ones before types are known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit
from numba.core import event

from schemas.errors import ConfigError

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
_njit = cast(Callable[..., Any], njit)


def kernel(function: Kernel) -> Kernel:
    """A compiled function of its own, kept in the cache on disk.

    Raises:
        ConfigError: there is no folder to keep it in; compiling at every start would take a minute of everybody's time.
    """
    try:
        return cast(Kernel, _njit(cache=True, nogil=True, _nrt=False)(function))
    except RuntimeError as error:
        if "no locator" not in str(error):
            raise
        raise ConfigError(
            "expected a folder to keep compiled kernels in, got none that we may write to: set NUMBA_CACHE_DIR to one"
        ) from None


def tell_compiling(tell: Callable[[], None]) -> None:
    """Have ``tell`` called once, when the first kernel has to be compiled; never, when all come from the cache on disk."""

    class _First(event.Listener):
        def __init__(self) -> None:
            self.told = False

        def on_start(self, event: object) -> None:
            if not self.told:
                self.told = True
                tell()

        def on_end(self, event: object) -> None:
            pass

    register = cast(Callable[[str, event.Listener], None], event.register)
    register("numba:compile", _First())


def inlined(function: Kernel) -> Kernel:
    """A compiled function that becomes part of its callers."""
    return cast(Kernel, _njit(forceinline=True, nogil=True, _nrt=False)(function))


def spliced(function: Kernel) -> Kernel:
    """A function whose text becomes part of its callers': each compiles it for its own constants."""
    return cast(Kernel, _njit(inline="always", nogil=True, _nrt=False)(function))
