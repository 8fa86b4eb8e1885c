"""Reading what a job has written, its older part first, as it grows."""

import sys
import time
from pathlib import Path

from lepton_rl.errors import NodeError
from lepton_rl.node.client import NodeClient

_PAUSE_S = 0.2
_FINAL = ("done", "failed", "cancelled", "lost")


def print_log(client: NodeClient, job: int, stream: str, *, follow: bool) -> None:
    """Write a job's output to standard output; with `follow` until the job has ended.

    Raises:
        NodeError: the job has not run yet (and is not followed), or its output cannot be read.
    """
    found = client.call("job", job=job)
    while follow and found["logs"] is None and found["state"] not in _FINAL:
        time.sleep(_PAUSE_S)
        found = client.call("job", job=job)
    if found["logs"] is None:
        raise NodeError(f"job {job} has not run: it is {found['state']}")
    run, path = found["run"], Path(found["logs"]) / stream
    older = path.with_name(f"{stream}.1")
    position = 0
    if older.exists():
        _copy(older, 0)
    while True:
        ended = found["state"] in _FINAL
        position = _copy(path, position)
        if not follow or ended:
            return
        time.sleep(_PAUSE_S)
        found = client.call("job", job=job)
        if found["run"] != run:
            _copy(path, position)
            run, path, position = found["run"], Path(found["logs"]) / stream, 0


def _copy(path: Path, position: int) -> int:
    """Write what a file holds from a position on; return where it ends. A file that was cut is read from its start."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(position if size >= position else 0)
            while block := file.read(1 << 16):
                sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
            return file.tell()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise NodeError(f"{path}: this log cannot be read: {error.strerror}") from None
