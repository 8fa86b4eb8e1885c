"""One run at a time in a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lepton_rl.errors import ConfigError
from lepton_rl.experiments.runs import LOCK_FILE


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder that is there for one run; the system lets go of it when the process ends, however it ends.

    Where there are no such locks (Windows, some network file systems) nothing is held.

    Raises:
        ConfigError: another process holds it.
    """
    path = folder / LOCK_FILE
    descriptor = _locked(path)
    try:
        yield
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _locked(path: Path) -> int | None:
    try:
        import fcntl
    except ImportError:
        return None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigError(f"{path.parent}: another run is under way there; choose another --out") from None
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            return None
        os.close(descriptor)  # whoever held it has just removed it: this one is no longer in the folder
