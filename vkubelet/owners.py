"""Who may submit now: a brake per owner (ReplicaSet, Job, …), so that rejected pods never storm Slurm. Nothing of I/O.

A new owner's first pod goes alone; the others wait for its verdict. Accepted: the owner is free until a rejection.
Rejected: the owner is closed for a while, twice as long each time, and then one pod goes alone again. So a Deployment
with an invalid account makes one sbatch call per wait, whatever its replicas.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_FIRST_SECONDS = 10.0
_MOST_OWNERS = 10_000


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the owner's last pod was not accepted, as a container's waiting reason and message."""

    reason: str
    message: str


@dataclass(slots=True)
class _Owner(Generic[K]):
    free: bool = False
    trying: K | None = None
    closed_until: float = 0.0
    rejections: int = 0
    refusal: Refusal | None = None
    waiting: set[K] = field(default_factory=set)


class OwnerGate(Generic[K]):
    """The brakes of all owners. ``wake`` is called with every pod that may ask again."""

    def __init__(self, wake: Callable[[K], None], *, clock: Callable[[], float]) -> None:
        self._wake = wake
        self._clock = clock
        self._owners: dict[str, _Owner[K]] = {}

    def enter(self, owner: str, key: K) -> float | None:
        """Return None if the pod may be submitted now, else after how many seconds to ask again at the latest.

        Who may, must say ``accepted``, ``rejected`` or ``left`` afterwards.
        """
        state = self._owners.setdefault(owner, _Owner())
        wait = state.closed_until - self._clock()
        if wait > 0:
            return wait
        if state.free:
            return None
        if state.trying is not None and state.trying != key:
            state.waiting.add(key)
            return 2 * _FIRST_SECONDS
        state.trying = key
        return None

    def wait_seconds(self, owner: str) -> float:
        """Return for how long the owner is closed, 0 if it is not."""
        state = self._owners.get(owner)
        return 0.0 if state is None else max(0.0, state.closed_until - self._clock())

    def refusal(self, owner: str) -> Refusal | None:
        """Return why the owner is closed, None if it is not."""
        state = self._owners.get(owner)
        return None if state is None or state.free else state.refusal

    def accepted(self, owner: str, key: K) -> None:
        """Slurm took a job of the owner's."""
        state = self._owners.setdefault(owner, _Owner())
        state.free, state.rejections, state.refusal = True, 0, None
        self._leave(state, key)
        if owner == key:
            del self._owners[owner]  # a pod without a controller is its own owner and submits no more
        elif len(self._owners) > _MOST_OWNERS:
            now = self._clock()
            self._owners = {
                name: each for name, each in self._owners.items() if each.trying is not None or each.closed_until > now
            }

    def rejected(self, owner: str, key: K, refusal: Refusal, *, limit_seconds: float) -> None:
        """Slurm refused a job of the owner's; many refusals of jobs under way at once count as one."""
        state = self._owners.setdefault(owner, _Owner())
        now = self._clock()
        if state.closed_until <= now:
            state.rejections += 1
            state.closed_until = now + min(_FIRST_SECONDS * 2 ** min(state.rejections - 1, 30), limit_seconds)
        state.free, state.refusal = False, refusal
        self._leave(state, key)

    def reopen(self) -> None:
        """Slurm is back: every owner may try again."""
        for state in self._owners.values():
            state.closed_until = self._clock()

    def left(self, owner: str, key: K) -> None:
        """Nothing was learnt: the pod was not submitted after all."""
        if state := self._owners.get(owner):
            self._leave(state, key)

    def forget(self, owner: str, key: K) -> None:
        """The pod is gone."""
        if state := self._owners.get(owner):
            state.waiting.discard(key)
            self._leave(state, key)
            if owner == key:
                del self._owners[owner]

    def _leave(self, state: _Owner[K], key: K) -> None:
        if state.trying == key:
            state.trying = None
        waiting, state.waiting = state.waiting, set()
        for other in waiting:
            self._wake(other)
