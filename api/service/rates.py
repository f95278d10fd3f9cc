"""How many requests each caller may make in a second, minute, hour or day.

Counts are kept in memory: each process has its own, and begins at none.
"""

import math
import time
from collections.abc import Mapping

from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from api.errors import RateLimited
from api.service.callers import Caller


class Rates:
    """Counts requests, in a window that moves with the time.

    Args:
        default: rate of callers whose key has none, as "60/minute"; None for no limit.
    """

    def __init__(self, default: str | None) -> None:
        self._default = default
        self._storage = MemoryStorage()
        self._limiter = MovingWindowRateLimiter(self._storage)
        self._latest = 0.0

    def take(self, caller: Caller) -> Mapping[str, str]:
        """Count a request; the headers that tell how many are left. Raises RateLimited."""
        rate = caller.rate or self._default
        if rate is None:
            return {}
        self._follow_clock()
        item = parse(rate)
        permitted = self._limiter.hit(item, caller.owner)
        window = self._limiter.get_window_stats(item, caller.owner)
        seconds = max(1, math.ceil(window.reset_time - time.time()))
        # draft-ietf-httpapi-ratelimit-headers-10
        headers = {
            "RateLimit-Policy": f'"requests";q={item.amount};w={item.get_expiry()}',
            "RateLimit": f'"requests";r={window.remaining};t={seconds}',
        }
        if not permitted:
            message = f"the limit of {rate} is reached; try again in {seconds} seconds"
            raise RateLimited(message, seconds, headers)
        return headers

    def _follow_clock(self) -> None:
        """Begin at none where the clock was put back: what lies ahead would count until then."""
        now = time.time()
        if now < self._latest - 1:
            self._storage.reset()
        self._latest = now
