"""How many requests one client may send: a bucket that fills at a steady rate."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

_MOST_BUCKETS = 10_000


class RateLimit:
    """Lets a rate of requests through for each client, and short bursts above it.

    Args:
        per_second: lasting rate.
        burst: requests at once after a pause.
        clock: seconds that do not jump.
    """

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float]) -> None:
        self._per_second, self._burst, self._clock = per_second, burst, clock
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait_s(self, client: Hashable) -> float:
        """Count a request and return 0, or return how many seconds the client is to wait; then it does not count."""
        now = self._clock()
        left, at = self._buckets.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._per_second)
        allowed = left >= 1.0
        self._buckets[client] = (left - 1.0 if allowed else left, now)
        if len(self._buckets) > _MOST_BUCKETS:  # the one that was silent for longest
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - left) / self._per_second
