"""Reading a workload file from disk, plain or gzip, with errors that name the file."""

import gzip
import zlib
from pathlib import Path

from lepton_rl.errors import TraceError

_GZIP = b"\x1f\x8b"


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """Return the file's content, unpacked if it is gzip; the first `limit` bytes of it if given."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise TraceError(f"{path}: is a stream, and this is read twice; write it to a file and name that")
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            if not packed:
                return file.read(-1 if limit is None else limit)
            with gzip.open(file) as unpacked:
                return unpacked.read(-1 if limit is None else limit)
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise TraceError(f"{path}: is a folder; a file is wanted here") from None
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise TraceError(f"{path}: the gzip data is damaged or cut short") from None
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_text(path: Path) -> str:
    """Return the file's content as text; it must be UTF-8, with or without a byte order mark."""
    data = read_bytes(path)
    if b"\0" in data:
        raise TraceError(f"{path}:{data[: data.index(0)].count(10) + 1}: binary data, not text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TraceError(f"{path}:{line}: byte 0x{data[error.start]:02x} is not UTF-8 text") from None


def trace_name(path: Path) -> str:
    """Return the file's name without .gz and the suffix of its format."""
    name = path.name.removesuffix(".gz")
    return Path(name).stem or name
