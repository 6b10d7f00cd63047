"""What is told the user as events: each once, repeats counted, and neither many words nor many writes of it.

As Kubernetes' own recorder does (1.36 ``client-go/tools/record/events_cache.go``): the same again is counted; once there
are ten of a reason in ten minutes that differ in their words alone, the next ones are one event with the latest words.
"""

from typing import Dict, List

from .state import MAX_EVENTS, Event

_MOST_SIMILAR = 10
_SIMILAR_SECONDS = 600.0
_COMBINED = "(combined from similar events): "
# A count is news after this long, and then after as long as it has been going on.
_SHORTEST_SECONDS = 10.0
_LONGEST_SECONDS = 300.0


class Happenings:
    """The last 64 events of a run, oldest first."""

    def __init__(self) -> None:
        self.events: List[Event] = []
        self._told_at: Dict[int, float] = {}
        self._sequence = 0

    def add(self, kind: str, reason: str, message: str, container: str, now: float) -> bool:
        """Take in what has happened; return whether it is to be told at once, and not just with the next change."""
        key = (kind, reason, container)
        similar = [event for event in self.events if (event.type, event.reason, event.container) == key]
        same = [event for event in similar if event.message == message]
        recent = [event for event in similar if now - event.last_at < _SIMILAR_SECONDS]
        combined = [event for event in recent if event.message.startswith(_COMBINED)]
        if not same and (combined or len(recent) >= _MOST_SIMILAR):
            same, message = combined, _COMBINED + message
        if same:
            return self._count(same[-1], message, now)
        self._sequence += 1
        self.events.append(Event(self._sequence, kind, reason, message, container, now, 1, now))
        self._told_at[self._sequence] = now
        for event in self.events[:-MAX_EVENTS]:
            del self._told_at[event.sequence]
        del self.events[:-MAX_EVENTS]
        return True

    def _count(self, event: Event, message: str, now: float) -> bool:
        counted = event._replace(message=message, times=event.times + 1, last_at=now)
        self.events[self.events.index(event)] = counted
        told_at = self._told_at[event.sequence]
        if now - told_at < min(_LONGEST_SECONDS, max(_SHORTEST_SECONDS, told_at - event.at)):
            return False
        self._told_at[event.sequence] = now
        return True
