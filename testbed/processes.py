"""Long-lived processes that outlive the command which started them, and are found again by the next one.

A record names a process by pid, start time and boot, so that a pid which the kernel gave to someone else is never
signalled; signals go through a pidfd taken before that comparison, so that there is no moment in between either.
"""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from testbed.errors import TestbedError
from testbed.paths import Layout

_POLL_SECONDS = 0.05
_TAIL_LINES = 15
_children: dict[
    int, subprocess.Popen[bytes]
] = {}  # our own, so that those which end are reaped and not left as zombies


def start(
    layout: Layout,
    name: str,
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> int:
    """Start `argv` as process `name` in a session of its own and return its pid; a no-op when it lives already.

    Its output is appended to the process's log, its standard input is empty. `env` replaces the environment.
    Raises TestbedError when the program cannot be executed.
    """
    living = pid(layout, name)
    if living is not None:
        return living
    log, record = layout.log(name), layout.process(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    record.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            child = subprocess.Popen(
                [os.fspath(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise TestbedError(f"{name} could not be started: {error}") from error
    _children[child.pid] = child
    identity = {
        "pid": child.pid,
        "start": began_at(child.pid),
        "boot": _boot_id(),
        "argv": [str(word) for word in argv],
    }
    partial = record.with_suffix(".partial")
    partial.write_text(json.dumps(identity) + "\n")
    partial.replace(record)
    return child.pid


def pid(layout: Layout, name: str) -> int | None:
    """The pid of process `name`, or None when it does not live (zombies do not)."""
    with _opened(layout, name) as found:
        return found[0] if found else None


def alive(layout: Layout, name: str) -> bool:
    """Whether process `name` was started and has not ended."""
    return pid(layout, name) is not None


def require(layout: Layout, name: str) -> None:
    """Raise TestbedError with the end of its log when process `name` does not live; for use in `wait_until`'s check."""
    if not alive(layout, name):
        raise TestbedError(f"{name} ended unexpectedly.{_tail(layout.log(name))}")


def stop(layout: Layout, name: str, *, grace_seconds: float = 10) -> None:
    """End process `name` (TERM; KILL, to its whole process group, after `grace_seconds`) and wait until it is gone.

    A no-op when it does not live. The record is removed in any case.
    """
    with _opened(layout, name) as found:
        if found:
            _end(*found, grace_seconds=grace_seconds)
    layout.process(name).unlink(missing_ok=True)


def names(layout: Layout) -> list[str]:
    """The names of all recorded processes, living or not."""
    return sorted(path.stem for path in (layout.state / "run").glob("*.json"))


def wait_until(what: str, check: Callable[[], bool], *, timeout_seconds: float, log: Path | None = None) -> None:
    """Return once `check()` holds; raise TestbedError with the end of `log` when it does not within `timeout_seconds`.

    `what` completes "waiting for …". `check` is called every 50 ms, at least once; what it raises passes through and ends the wait.
    """
    deadline = time.monotonic() + timeout_seconds
    while not check():
        if time.monotonic() > deadline:
            raise TestbedError(f"Gave up after {timeout_seconds:g} s of waiting for {what}.{_tail(log) if log else ''}")
        time.sleep(_POLL_SECONDS)


@contextmanager
def _opened(layout: Layout, name: str) -> Iterator[tuple[int, int] | None]:
    """The pid and a pidfd of the recorded process, when it is the one we started and lives."""
    recorded = _read_record(layout.process(name))
    if recorded is None:
        yield None
        return
    number, start_time, boot = recorded
    child = _children.get(number)
    if child is not None and child.poll() is not None:
        del _children[number]
    try:
        descriptor = os.pidfd_open(number)
    except ProcessLookupError:
        yield None
        return
    try:
        same = boot == _boot_id() and start_time is not None and start_time == began_at(number)
        yield (number, descriptor) if same else None
    finally:
        os.close(descriptor)


def _end(number: int, descriptor: int, *, grace_seconds: float) -> None:
    ended = select.poll()
    ended.register(descriptor, select.POLLIN)  # readable once the process has ended: pidfd_open(2)
    signal.pidfd_send_signal(descriptor, signal.SIGTERM)
    if not ended.poll(grace_seconds * 1000):
        os.killpg(number, signal.SIGKILL)  # it leads its session, so while it lives the group is its own
        ended.poll()
    child = _children.pop(number, None)
    if child is not None:
        child.wait()


def _read_record(path: Path) -> tuple[int, int | None, str] | None:
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return record["pid"], record["start"], record["boot"]


def began_at(number: int) -> int | None:
    """Clock ticks from boot to the start of process `number`; None when it has ended, as a zombie has (proc_pid_stat(5))."""
    try:
        stat = Path(f"/proc/{number}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
    except FileNotFoundError:
        return ""
    return f" The end of {log}:\n" + "\n".join(f"    {line}" for line in lines)
