"""Printing what a job has written, as it grows."""

import base64
import sys
import time

from lepton_rl.errors import NodeError
from lepton_rl.node.client import NodeClient
from lepton_rl.node.jobs import FINAL

_PAUSE_S = 0.2


def print_log(client: NodeClient, job: int, stream: str, *, follow: bool, tail: int | None = None) -> None:
    """Write a job's output to standard output; with `follow` until the job has ended.

    Args:
        client: of the node.
        job: its number.
        stream: stdout or stderr.
        follow: go on as it grows, and with later runs of the job.
        tail: only so many of the lines that are there.

    Raises:
        NodeError: the job has not run yet (and is not followed), or its output cannot be read.
    """
    found = client.call("job", job=job)
    while follow and found["run"] == 0 and found["state"] not in FINAL:
        time.sleep(_PAUSE_S)
        found = client.call("job", job=job)
    if found["run"] == 0:
        raise NodeError(f"job {job} has not run: it is {found['state']}")
    run, position, announce = found["run"], 0, False
    while True:
        ended = found["state"] in FINAL
        position = _copy(client, job, run, stream, position, tail=tail, announce=announce)
        tail, announce = None, True
        if not follow or ended:
            return
        time.sleep(_PAUSE_S)
        found = client.call("job", job=job)
        if found["run"] != run:
            _copy(client, job, run, stream, position, announce=True)
            run, position, announce = found["run"], 0, False


def _copy(
    client: NodeClient, job: int, run: int, stream: str, position: int, *, tail: int | None = None, announce: bool
) -> int:
    """Write what there is from a position on; return the position after it."""
    while True:
        more = {} if tail is None else {"tail": tail}
        page = client.call("log", job=job, run=run, stream=stream, position=position, **more)
        if announce and page["begin"] > position:
            lost = page["begin"] - position
            print(f"{lost:,} bytes are missing here: the log grew faster than its limit lets it", file=sys.stderr)
        sys.stdout.buffer.write(base64.b64decode(page["data"]))
        sys.stdout.buffer.flush()
        if page["end"]:
            return int(page["after"])
        if not page["data"]:  # it is being rotated
            time.sleep(0.01)
            continue
        position, tail, announce = page["after"], None, True
