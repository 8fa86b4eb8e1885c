"""Numba's `njit` with this project's settings and a cache that can be trusted.

Numba's own cache has two traps. It looks only at the file of the compiled function, so an edit to a helper in
another file goes unseen; here every kernel is stamped with the content of all kernel sources. And it raises
"no locator available" where neither the source folder nor the user's cache folder can be written (a service
account, a read-only container); here the kernels then compile in memory.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

_PACKAGE = Path(__file__).parents[1]
KERNEL_LAYERS = ("core", "simulator", "envs")
"""Folders of which any file may give compiled code a helper or a constant; elsewhere kernels import what they use."""


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _home_folder() -> list[Path]:
    """The user's cache folder, if the user has a home (a container's or service's account may not)."""
    try:
        cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return []
    return [Path(cache_home) / "lepton_rl"]


def _temporary_folder() -> Path | None:
    """A folder of our own among the temporary ones; never another account's, for cached kernels are code."""
    try:
        folder = Path(tempfile.gettempdir()) / f"lepton_rl-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:  # no temporary folder can be written
        return None
    private = status.st_uid == os.getuid() and not status.st_mode & 0o022
    return folder if private and _writable(folder) else None


@cache
def kernel_cache_folder() -> Path | None:
    """Return the folder for compiled kernels, or None when no candidate can be written."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    candidates = [Path(named)] if named else [_PACKAGE / "__pycache__" / "kernels", *_home_folder()]
    found = next((folder for folder in candidates if _writable(folder)), None)
    return found or _temporary_folder()


@cache
def kernel_sources_stamp() -> str:
    """Return a digest of every source file that holds compiled functions, their helpers or their constants."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        inside, content = path.relative_to(_PACKAGE), path.read_bytes()
        if inside.parts[0] in KERNEL_LAYERS or b"core.jit" in content:
            digest.update(inside.as_posix().encode() + b"\0" + content)
    return digest.hexdigest()


@cache
def _install_cache_locator() -> bool:
    """Teach numba where this package's kernels are cached; return whether they can be."""
    folder = kernel_cache_folder()
    if folder is None:
        return False
    try:
        from numba.core.caching import CacheImpl, _CacheLocator
    except ImportError:  # a numba that moved its cache: its defaults serve
        return True

    class KernelLocator(_CacheLocator):
        def __init__(self, py_func: Any, py_file: str) -> None:
            self._line = py_func.__code__.co_firstlineno
            self._py_file = py_file

        def get_cache_path(self) -> str:
            return str(folder)

        def get_source_stamp(self) -> str:
            return kernel_sources_stamp()

        def get_disambiguator(self) -> str:
            return f"{Path(self._py_file).stem}{self._line}"

        @classmethod
        def from_function(cls, py_func: Any, py_file: str) -> "KernelLocator | None":
            return cls(py_func, py_file) if Path(py_file).is_relative_to(_PACKAGE) else None

    CacheImpl._locator_classes.insert(0, KernelLocator)
    return True


def njit(function: Function) -> Function:
    """Compile a function that allocates no arrays: cached, IEEE division (no exceptions), one thread.

    Without numba's reference counting (`_nrt=False`), which would touch every array header at every call.
    """
    return _compile(function, cache=_install_cache_locator(), _nrt=False)


def njit_allocating(function: Function) -> Function:
    """Compile a function that allocates arrays."""
    return _compile(function, cache=_install_cache_locator(), _nrt=True)


def inlined(function: Function) -> Function:
    """Compile a hot helper, free of allocations, so that LLVM inlines it: passing twenty arrays costs more."""
    return _compile(function, cache=_install_cache_locator(), forceinline=True, _nrt=False)


def njit_summing(function: Function) -> Function:
    """Compile a function of long sums whose order of addition may differ between machines: lanes, fused products."""
    return _compile(function, cache=_install_cache_locator(), fastmath={"reassoc", "contract", "nsz"}, _nrt=False)


def _compile(function: Function, **options: Any) -> Function:
    from numba import njit as numba_njit

    compiled: Function = numba_njit(error_model="numpy", nogil=True, **options)(function)
    return compiled
