"""Numba's `njit` with this project's settings and a cache that can be trusted.

Numba's own cache has two traps. It looks only at the file of the compiled function, so an edit to a helper in
another file goes unseen; here every kernel is stamped with the content of its file and of all that this imports. And
it raises "no locator available" where neither the source folder nor the user's cache folder can be written (a service
account, a read-only container); here the kernels then compile in memory.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

_PACKAGE = Path(__file__).parents[1]
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(lepton_rl[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)|import[ \t]+(lepton_rl[\w.]*))",
    re.MULTILINE,
)
_IMPORTED_NAME = re.compile(r"(\w+)(?:[ \t]+as[ \t]+\w+)?[ \t]*(?:,|\)|$|#)")


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


def _module_file(dotted: str) -> Path | None:
    """Return the file of one of the package's modules, None where there is none of the name."""
    path = _PACKAGE.joinpath(*dotted.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def _read_source(file: Path) -> tuple[bytes, tuple[Path, ...]]:
    """Return a source file's digest, and the files of the package that it imports from.

    A name that is a module stands for that module alone; any other is looked for behind the package's `__init__`.
    """
    content = file.read_bytes()
    found: set[Path | None] = set()
    for package, names, module in _IMPORT.findall(content.decode()):
        if module:
            found.add(_module_file(module))
            continue
        modules = [_module_file(f"{package}.{name}") for name in _IMPORTED_NAME.findall(names)]
        found.update(modules)
        if None in modules or not modules:
            found.add(_module_file(package))
    return hashlib.sha256(content).digest(), tuple(sorted(path for path in found if path is not None))


@cache
def kernel_sources_stamp(file: Path) -> str:
    """Return a digest of a source file and of all files of the package from which it imports, directly or not."""
    behind, reached = [file], {file}
    while behind:
        for imported in _read_source(behind.pop())[1]:
            if imported not in reached:
                reached.add(imported)
                behind.append(imported)
    digest = hashlib.sha256()
    for path in sorted(reached):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + _read_source(path)[0])
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
            return kernel_sources_stamp(Path(self._py_file))

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
