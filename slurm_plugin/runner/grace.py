"""How long the pod still has once it is being ended: a deadline that may only come nearer."""

from .loop import Loop, Promise

MINIMUM_SECONDS = 2.0  # the kubelet's minimumGracePeriodInSeconds


class Grace:
    """Seconds from now until KILL."""

    def __init__(self, loop: Loop, seconds: float) -> None:
        self._loop = loop
        self._expires = loop.now() + seconds
        self._changed = Promise(loop)

    def remaining(self) -> float:
        """Return the seconds that are left, never less than 0."""
        return max(0.0, self._expires - self._loop.now())

    def shorten(self, seconds: float) -> None:
        """Allow so many seconds from now, if that is less than is left."""
        expires = self._loop.now() + seconds
        if expires < self._expires:
            self._expires = expires
            changed, self._changed = self._changed, Promise(self._loop)
            changed.resolve()

    async def wait(self, promise: Promise, minimum: float = 0.0) -> bool:
        """Wait for the promise, at most until the deadline (but ``minimum`` seconds); return whether it is done."""
        floor = self._loop.now() + minimum
        while not promise.done:
            left = max(self._expires, floor) - self._loop.now()
            if left <= 0:
                return False
            await self._loop.first(promise, self._changed, timeout=left)
        return True
