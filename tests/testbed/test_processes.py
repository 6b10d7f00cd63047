"""Processes are found again, and only the ones we started are ever signalled."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import processes
from testbed.errors import TestbedError
from testbed.paths import Layout

READY = "print('ready', flush=True)"
SLEEP = "import time; time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}; {SLEEP}"


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(cache=tmp_path / "cache", state=tmp_path / "state", port_base=21000)
    yield layout
    for name in processes.names(layout):
        processes.stop(layout, name, grace_seconds=0)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_started_process_lives_until_it_is_stopped(layout: Layout) -> None:
    pid = processes.start(layout, "sleeper", python(SLEEP))

    assert processes.pid(layout, "sleeper") == pid
    assert os.getsid(pid) == pid

    processes.stop(layout, "sleeper")

    assert not processes.alive(layout, "sleeper")
    assert processes.names(layout) == []


def test_starting_what_lives_is_a_no_op(layout: Layout) -> None:
    assert processes.start(layout, "sleeper", python(SLEEP)) == processes.start(layout, "sleeper", python("raise"))


def test_a_process_that_ended_is_started_again(layout: Layout) -> None:
    first = processes.start(layout, "brief", python("pass"))
    processes.wait_until("the end", lambda: not processes.alive(layout, "brief"), timeout_seconds=20)

    assert processes.start(layout, "brief", python(SLEEP)) != first


def test_stopping_what_never_started_is_a_no_op(layout: Layout) -> None:
    processes.stop(layout, "nobody")


def test_a_process_that_ignores_term_is_killed_after_its_grace(layout: Layout) -> None:
    processes.start(layout, "stubborn", python(STUBBORN))
    processes.wait_until("ready", lambda: "ready" in layout.log("stubborn").read_text(), timeout_seconds=20)

    processes.stop(layout, "stubborn", grace_seconds=0.1)

    assert not processes.alive(layout, "stubborn")


@pytest.mark.parametrize("changed", [{"start": 1}, {"boot": "another"}, {"start": None}])
def test_a_stranger_with_a_recorded_pid_is_left_alone(layout: Layout, changed: dict[str, object]) -> None:
    stranger = subprocess.Popen(python(SLEEP))
    try:
        processes.start(layout, "mine", python(SLEEP))
        record = layout.process("mine")
        original = record.read_text()
        record.write_text(json.dumps({**json.loads(original), "pid": stranger.pid, **changed}))

        assert not processes.alive(layout, "mine")
        processes.stop(layout, "mine")
        assert stranger.poll() is None

        record.write_text(original)
    finally:
        stranger.kill()
        stranger.wait()


def test_a_missing_program_is_named(layout: Layout) -> None:
    with pytest.raises(TestbedError, match=r"ghost could not be started: .*/no/such/program"):
        processes.start(layout, "ghost", ["/no/such/program"])


def test_requiring_a_dead_process_shows_the_end_of_its_log(layout: Layout) -> None:
    processes.start(layout, "crasher", python("raise SystemExit('no such flag')"))
    processes.wait_until("the end", lambda: not processes.alive(layout, "crasher"), timeout_seconds=20)

    with pytest.raises(TestbedError, match=r"(?s)crasher ended unexpectedly.*no such flag"):
        processes.require(layout, "crasher")


def test_waiting_in_vain_names_what_was_waited_for(layout: Layout) -> None:
    with pytest.raises(TestbedError, match=r"after 0.01 s .* the moon to rise"):
        processes.wait_until("the moon to rise", lambda: False, timeout_seconds=0.01)


def test_a_name_that_is_a_path_is_refused(layout: Layout) -> None:
    with pytest.raises(ValueError, match="no process name"):
        layout.process("../etcd")
