"""What a job has written, read piece by piece by the daemon: its files may be closed to those who may read them."""

import base64
import os
from pathlib import Path
from typing import Any

PAGE_BYTES = 256 << 10
FILES = ("stdout", "stderr", "stdout.1", "stderr.1")


def read_page(file: Path, position: int) -> dict[str, Any]:
    """Return a piece of a file from a position on; of one that was cut meanwhile from its start.

    Returns:
        `data` in base64, `position` after it, and whether that is the `end` for now. A file that is not there is empty.

    Raises:
        OSError: it cannot be read.
    """
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return {"data": "", "position": 0, "end": True}
    with os.fdopen(opened, "rb") as source:
        size = os.fstat(opened).st_size
        source.seek(position if size >= position else 0)
        data = source.read(PAGE_BYTES)
        after = source.tell()
    return {"data": base64.b64encode(data).decode(), "position": after, "end": len(data) < PAGE_BYTES}
