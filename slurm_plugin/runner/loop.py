"""A scheduler for the runner's few coroutines: one thread, one selector, children reaped by SIGCHLD.

asyncio would do it too, for 60 ms of every pod's start and 8 MB of every node's memory. This is the little of it that a
pod runner needs: tasks, timers, file descriptors, child processes and signals. Nothing here knows pods.
"""

import heapq
import os
import selectors
import signal
import sys
import time
import traceback
from collections import deque
from typing import Any, Callable, Coroutine, Deque, Dict, Generator, List, Optional, Tuple

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Cancelled(BaseException):
    """Thrown into a coroutine whose task was cancelled. Clean up and let it pass."""


class Promise:
    """Something that will be known later. Await it, any number of times; only the first resolution counts."""

    __slots__ = ("_callbacks", "_error", "_loop", "_value", "done")

    def __init__(self, loop: "Loop") -> None:
        self._loop = loop
        self.done = False
        self._value: Any = None
        self._error: Optional[BaseException] = None
        self._callbacks: List[Callable[[], None]] = []

    def resolve(self, value: Any = None) -> None:
        """Make the value known; a later one is ignored."""
        if not self.done:
            self._value = value
            self._finish()

    def reject(self, error: BaseException) -> None:
        """Make every await of it raise."""
        if not self.done:
            self._error = error
            self._finish()

    def _finish(self) -> None:
        self.done = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._loop.call_soon(callback)

    def result(self) -> Any:
        """Return the value or raise the error; only once done."""
        if self._error is not None:
            raise self._error
        return self._value

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Call back (from the loop, never at once) when done."""
        if self.done:
            self._loop.call_soon(callback)
        else:
            self._callbacks.append(callback)

    def remove_callback(self, callback: Callable[[], None]) -> None:
        """Forget a callback; nothing happens if it is not there."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def __await__(self) -> Generator["Promise", None, Any]:
        if not self.done:
            yield self
        return self.result()


class Task(Promise):
    """A running coroutine; resolves with what it returns. An error that nobody awaits stops the loop."""

    __slots__ = ("_begun", "_coroutine", "_waiting", "awaited", "name")

    def __init__(self, loop: "Loop", coroutine: "Coroutine[Any, Any, Any]", name: str) -> None:
        Promise.__init__(self, loop)
        self.name = name
        self.awaited = False
        self._begun = False
        self._coroutine = coroutine
        self._waiting: Optional[Promise] = None
        loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._waiting = None
        self._step(None)

    def _step(self, error: Optional[BaseException]) -> None:
        if self.done:
            return
        self._begun = True
        try:
            waiting = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except StopIteration as stop:
            self.resolve(stop.value)
        except Cancelled as cancelled:
            self.awaited = True
            self.reject(cancelled)
        except Exception as failure:
            if not self.awaited and not self._callbacks:
                self._loop.fail(self, failure)
            self.reject(failure)
        else:
            self._waiting = waiting
            waiting.add_callback(self._wake)

    def cancel(self) -> None:
        """Throw Cancelled into the coroutine, at its next turn. Nothing happens if it is done."""
        if self.done:
            return
        if self._waiting is not None:
            self._waiting.remove_callback(self._wake)
            self._waiting = None
        self._loop.call_soon(lambda: self._step(Cancelled()))

    def abandon(self) -> None:
        """Forget a coroutine that will never begin: the loop has ended. Python would complain of it at its exit."""
        if not self._begun:
            self._coroutine.close()


class Timer:
    """A call to be made later."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Optional[Callable[[], None]] = callback

    def cancel(self) -> None:
        """Make it never be called."""
        self.callback = None


class Loop:
    """The scheduler. One per process; it owns SIGCHLD and reaps every child of the process."""

    def __init__(self) -> None:
        self._ready: Deque[Callable[[], None]] = deque()
        self._timers: List[Tuple[float, int, Timer]] = []
        self._count = 0
        self._children: Dict[int, Promise] = {}
        self._signals: Dict[int, Callable[[], None]] = {}
        self._failure: Optional[BaseException] = None
        self._selector = selectors.DefaultSelector()
        self._wakeup, write_end = os.pipe()
        self._wakeup_write = write_end
        os.set_blocking(self._wakeup, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end)
        self.watch(self._wakeup, READ, self._on_signals)
        self.on_signal(signal.SIGCHLD, self._reap)

    # Time

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back at the loop's next turn."""
        self._ready.append(callback)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back in so many seconds."""
        timer = Timer(self.now() + max(0.0, seconds), callback)
        self._count += 1
        heapq.heappush(self._timers, (timer.when, self._count, timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds."""
        promise = Promise(self)
        timer = self.call_later(seconds, promise.resolve)
        try:
            await promise
        finally:
            timer.cancel()

    # Tasks

    def promise(self) -> Promise:
        """Return a new promise."""
        return Promise(self)

    def spawn(self, coroutine: "Coroutine[Any, Any, Any]", name: str) -> Task:
        """Start a coroutine beside the others."""
        return Task(self, coroutine, name)

    def fail(self, task: Task, error: BaseException) -> None:
        """Stop the loop: a task that nobody waits for has failed."""
        sys.stderr.write("slurmlet: task %s failed\n" % task.name)
        self._failure = self._failure or error

    async def first(self, *promises: Promise, **options: Optional[float]) -> Optional[Promise]:
        """Wait until one is done and return it (the first in this order); None after ``timeout`` seconds.

        An error is left in its promise: look at ``result()``.
        """
        gate = Promise(self)
        timeout = options.pop("timeout", None)
        timer = None if timeout is None else self.call_later(timeout, gate.resolve)
        for promise in promises:
            if isinstance(promise, Task):
                promise.awaited = True
            promise.add_callback(gate.resolve)
        try:
            if not any(promise.done for promise in promises):
                await gate
        finally:
            if timer is not None:
                timer.cancel()
            for promise in promises:
                promise.remove_callback(gate.resolve)
        return next((promise for promise in promises if promise.done), None)

    # Descriptors

    def watch(self, descriptor: int, events: int, callback: Callable[[], None]) -> None:
        """Call back whenever the descriptor is ready, until ``unwatch``."""
        self._selector.register(descriptor, events, callback)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching; must come before the descriptor is closed."""
        self._selector.unregister(descriptor)

    async def ready(self, descriptor: int, events: int, timeout: Optional[float] = None) -> bool:
        """Wait until the descriptor is ready; False after ``timeout`` seconds.

        Nothing watches it afterwards, also if the task was cancelled: its number is soon another file's.
        """
        promise = Promise(self)
        self.watch(descriptor, events, promise.resolve)
        try:
            return await self.first(promise, timeout=timeout) is not None
        finally:
            self.unwatch(descriptor)

    # Children and signals

    def child(self, pid: int) -> Promise:
        """Return the promise of a child's wait status. To be asked for in the turn that forked it."""
        promise = self._children.setdefault(pid, Promise(self))
        return promise

    def on_signal(self, number: int, callback: Callable[[], None]) -> None:
        """Call back, from the loop, for every such signal."""
        self._signals[number] = callback
        signal.signal(number, lambda _number, _frame: None)
        if number != signal.SIGCHLD:
            signal.siginterrupt(number, False)

    def leave_in_child(self) -> None:
        """In a forked child: give up the parent's descriptors and signal handlers."""
        signal.set_wakeup_fd(-1)
        for number in self._signals:
            signal.signal(number, signal.SIG_DFL)
        os.close(self._wakeup)
        os.close(self._wakeup_write)
        self._selector.close()

    def _on_signals(self) -> None:
        try:
            numbers = set(os.read(self._wakeup, 4096))
        except BlockingIOError:
            return
        for number in sorted(numbers):
            if number in self._signals:
                self._signals[number]()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            promise = self._children.pop(pid, None)
            if promise is not None:
                promise.resolve(status)

    # Running

    def run(self, coroutine: "Coroutine[Any, Any, Any]") -> Any:
        """Run until the coroutine is done; return its value. Raises what it, or a task nobody awaited, raised."""
        main = self.spawn(coroutine, "main")
        main.awaited = True
        while not main.done and self._failure is None:
            self._turn()
        for callback in self._ready:
            if isinstance(getattr(callback, "__self__", None), Task):
                callback.__self__.abandon()  # type: ignore[attr-defined]
        if self._failure is not None:
            traceback.print_exception(type(self._failure), self._failure, self._failure.__traceback__)
            raise self._failure
        return main.result()

    def _turn(self) -> None:
        while self._timers and (self._timers[0][2].callback is None or self._timers[0][0] <= self.now()):
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                self._ready.append(timer.callback)
        wait: Optional[float] = None
        if self._ready:
            wait = 0.0
        elif self._timers:
            wait = max(0.0, self._timers[0][0] - self.now())
        for key, _events in self._selector.select(wait):
            callback: Callable[[], None] = key.data
            self._ready.append(callback)
        for _ in range(len(self._ready)):
            self._ready.popleft()()
