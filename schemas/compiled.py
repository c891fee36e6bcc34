"""How the decoders' kernels are compiled, said once and typed.

None of them allocates: without the runtime's reference counts on their array arguments, small kernels that call each other
cost what inlined code costs. `inlined` ones are inlined by LLVM, `spliced` ones before types are known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
_njit = cast(Callable[..., Any], njit)


def kernel(function: Kernel) -> Kernel:
    """A compiled function of its own, kept in the cache on disk."""
    return cast(Kernel, _njit(cache=True, nogil=True, _nrt=False)(function))


def inlined(function: Kernel) -> Kernel:
    """A compiled function that becomes part of its callers."""
    return cast(Kernel, _njit(forceinline=True, nogil=True, _nrt=False)(function))


def spliced(function: Kernel) -> Kernel:
    """A function whose text becomes part of its callers': each compiles it for its own constants."""
    return cast(Kernel, _njit(inline="always", nogil=True, _nrt=False)(function))
