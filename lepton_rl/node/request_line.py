"""A request as it comes over a socket: one line of JSON, an object with an id of the caller's choice."""

import json
from typing import Any

from lepton_rl.errors import NodeError


def request_of(line: bytes) -> dict[str, Any]:
    """Return the request that a line is.

    Raises:
        NodeError: it is none.
    """
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise NodeError("a request must be one line of JSON") from None
    if not isinstance(request, dict):
        raise NodeError('a request must be an object, as {"id": 1, "verb": "status"}')
    if not isinstance(request.get("id"), int | str | None):
        raise NodeError("the id of a request must be a number or text")
    return request
