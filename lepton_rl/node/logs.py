"""Reading what a job has written, its older part first, as it grows."""

import base64
import sys
import time

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
    run, position = found["run"], 0
    _copy(client, job, run, f"{stream}.1", 0)
    while True:
        ended = found["state"] in _FINAL
        position = _copy(client, job, run, stream, position)
        if not follow or ended:
            return
        time.sleep(_PAUSE_S)
        found = client.call("job", job=job)
        if found["run"] != run:
            _copy(client, job, run, stream, position)
            run, position = found["run"], 0


def _copy(client: NodeClient, job: int, run: int, file: str, position: int) -> int:
    """Write what a file of a run holds from a position on; return where it ends. A cut one is read from its start."""
    while True:
        page = client.call("log", job=job, run=run, file=file, position=position)
        sys.stdout.buffer.write(base64.b64decode(page["data"]))
        position = int(page["position"])
        if page["end"]:
            sys.stdout.buffer.flush()
            return position
