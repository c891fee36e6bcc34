"""How kernels are compiled, said once and typed.

None of them allocates: without the runtime's reference counts on their array arguments, small kernels that call each other
cost what inlined code costs.

numba optimises every function together with all it calls, and generates machine code for it, before it is linked into its
callers, where both happen again. A tree of small functions six calls deep is so compiled six times. So a `part` is only
translated, and the `entry` above it optimises everything once; functions that nobody else can call are then private to it,
and LLVM drops the arguments that they do not use (an array is seven). What that was measured to be worth is in
docs/decisions/2026-11-25-optimise-decoders-once.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from llvmlite.binding import Linkage
from numba import njit
from numba.core import event
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

from schemas.errors import ConfigError

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
_njit = cast(Callable[..., Any], njit)


class _PartLibrary(JITCodeLibrary):
    """Code that is linked into others and never runs by itself, so it is neither optimised nor made machine code."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        cast(Any, self)._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """0: there is no machine code."""
        cast(Any, self)._ensure_finalized()
        return 0

    @property
    def codegen(self) -> Any:
        """Parts raise nothing and hold no objects: the environment that numba would set for them does not exist."""
        return _WithoutEnvironment()


class _WithoutEnvironment:
    def set_env(self, name: str, environment: object) -> None:
        pass


class _EntryLibrary(JITCodeLibrary):
    """Optimises an entry and everything below it as one."""

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if not function.is_declaration and function.linkage == Linkage.linkonce_odr:
                function.linkage = Linkage.internal
        cast(Any, super())._optimize_final_module()


def _compiler(library: type[JITCodeLibrary]) -> type[Compiler]:
    class WithLibrary(Compiler):
        def __init__(self, typing_context: Any, target_context: Any, _: Any, *rest: Any) -> None:
            code = cast(Any, library)(target_context.codegen(), "floodwall")
            cast(Any, super()).__init__(typing_context, target_context, code, *rest)
            self.state.library.enable_object_caching()

    return WithLibrary


_PART: dict[str, Any] = {
    "nogil": True, "_nrt": False, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True,
    "pipeline_class": _compiler(_PartLibrary),
}  # fmt: skip
_ENTRY: dict[str, Any] = {
    "cache": True, "nogil": True, "_nrt": False, "error_model": "numpy", "no_cfunc_wrapper": True,
    "pipeline_class": _compiler(_EntryLibrary),
}  # fmt: skip


def _cached(function: Kernel, options: dict[str, Any]) -> Kernel:
    try:
        return cast(Kernel, _njit(**options)(function))
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


def entry(function: Kernel) -> Kernel:
    """A compiled function that Python calls, kept in the cache on disk with all the parts below it.

    Raises:
        ConfigError: there is no folder to keep it in; compiling at every start would take a minute of everybody's time.
    """
    return _cached(function, _ENTRY)


def part(function: Kernel) -> Kernel:
    """A function that only an `entry` and its parts call."""
    return cast(Kernel, _njit(**_PART)(function))


def inlined(function: Kernel) -> Kernel:
    """A compiled function that becomes part of its callers."""
    return cast(Kernel, _njit(forceinline=True, **_PART)(function))
