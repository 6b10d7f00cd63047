"""Threads that a small program can afford: made when needed, bounded in number, fatal when they fail."""

import collections
import os
import threading
import traceback
from typing import Callable, Deque


def start(name: str, target: Callable[[], None]) -> None:
    """Run ``target`` in a daemon thread. Its failure is a bug, and half an agent is worse than none: the process ends."""

    def run() -> None:
        try:
            target()
        except BaseException:
            traceback.print_exc()
            os._exit(70)

    threading.Thread(target=run, name=name, daemon=True).start()


class Pool:
    """Runs calls in at most ``limit`` threads, in order of arrival."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._threads = 0
        self._idle = 0
        self._finishing = False
        self._calls: Deque[Callable[[], None]] = collections.deque()
        self._some = threading.Condition()

    def submit(self, call: Callable[[], None]) -> None:
        """Have ``call`` run; it must not raise."""
        with self._some:
            self._calls.append(call)
            if self._idle < len(self._calls) and self._threads < self._limit:
                self._threads += 1
                start(self._name, self._work)
            else:
                self._some.notify()

    def finish(self, seconds: float) -> None:
        """Drop the calls that were not begun; wait for the others, up to so many seconds."""
        with self._some:
            self._calls.clear()
            self._finishing = True
            self._some.wait_for(lambda: self._idle == self._threads, seconds)

    def _work(self) -> None:
        while True:
            with self._some:
                self._idle += 1
                if self._finishing:
                    self._some.notify_all()
                while not self._calls:
                    self._some.wait()
                self._idle -= 1
                call = self._calls.popleft()
            call()
