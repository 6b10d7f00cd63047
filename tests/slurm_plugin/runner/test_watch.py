"""``watch``: what it prints, run for real."""

import io
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm_plugin.jobdir import Root
from slurm_plugin.runner.watch import Voice, Watch

from .jobs import PROJECT

_PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop(1)); from slurm_plugin.runner.__main__ import main; sys.exit(main(sys.argv[1:]))"


class Watcher:
    def __init__(self, root: Path) -> None:
        argv = [
            sys.executable,
            "-I",
            "-S",
            "-B",
            "-c",
            _PROGRAM,
            str(PROJECT),
            "watch",
            str(root),
            "--interval",
            "0.02",
        ]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def next(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        while True:
            line: dict[str, Any] = json.loads(self.process.stdout.readline())
            if "ping" not in line:
                return line


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "pods").mkdir()
    return tmp_path


@pytest.fixture
def watcher(root: Path) -> Iterator[Watcher]:
    pod(root, "a1")
    watcher = Watcher(root)
    yield watcher
    watcher.close()


def pod(root: Path, uid: str) -> Path:
    staging = root / "pods" / f".{uid}"
    staging.mkdir()
    (staging / "plan.json").write_text(json.dumps({"namespace": "default", "name": uid}))
    directory = root / "pods" / uid
    staging.rename(directory)
    return directory


def replace(path: Path, data: object) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(data if isinstance(data, str) else json.dumps(data))
    temporary.rename(path)


STATE: dict[str, Any] = {
    "format": 1, "version": 1, "job_id": "7", "restart": 0, "node": "cn1", "pod_ips": [], "host_ips": [],
    "started_at": 1.0, "finished_at": 0, "final": False, "terminating": False, "reason": "", "message": "",
    "containers": [], "events": [],
}  # fmt: skip
EMPTY = {
    "uid": "a1", "namespace": "default", "name": "a1", "staged_at": None, "job_id": None, "submitted_at": None,
    "claim": None, "state": None,
}  # fmt: skip


def test_every_pod_is_told_once_and_then_only_changes(root: Path, watcher: Watcher) -> None:
    assert watcher.next() == EMPTY
    assert watcher.next() == {"synced": True}
    directory = root / "pods" / "a1"
    (directory / "run").mkdir()
    replace(directory / "run" / "claim", {"job_id": "7", "restart": 0})
    assert watcher.next()["claim"] == {"job_id": "7", "restart": 0}
    replace(directory / "state.json", STATE)
    assert watcher.next()["state"] == STATE
    replace(directory / "job-id", "7\n")
    assert watcher.next()["job_id"] == "7"


def test_new_and_vanished_pods_are_told(root: Path, watcher: Watcher) -> None:
    watcher.next()
    watcher.next()
    directory = pod(root, "b2")
    assert watcher.next()["uid"] == "b2"
    (directory / "plan.json").unlink()
    directory.rmdir()
    assert watcher.next() == {"uid": "b2", "gone": True}


def test_when_a_directory_was_made_and_its_job_submitted_is_told(tmp_path: Path) -> None:
    (tmp_path / "pods").mkdir()
    script = pod(tmp_path, "a1") / "job.sh"
    script.write_text("#!/bin/sh\n")
    os.utime(script, (5, 1_800_000_000))
    job_id = script.with_name("job-id")
    job_id.write_text("7")
    os.utime(job_id, (5, 1_800_000_060))
    watcher = Watcher(tmp_path)
    told = watcher.next()
    assert (told["staged_at"], told["submitted_at"]) == (1_800_000_000, 1_800_000_060)
    watcher.close()


def test_broken_state_is_told_once_and_the_rest_goes_on(root: Path, watcher: Watcher) -> None:
    watcher.next()
    watcher.next()
    replace(root / "pods" / "a1" / "state.json", "{")
    line = watcher.next()
    assert line["uid"] == "a1"
    assert "can't read" in line["error"]
    pod(root, "b2")
    assert watcher.next()["uid"] == "b2"


HOSTILE_STATES: dict[str, object] = {
    "a version that is a text": STATE | {"version": "9"},
    "a time without end": json.dumps(STATE).replace("1.0", "1e999"),
    "a time that is no number": json.dumps(STATE).replace("1.0", "NaN"),
    "a list for a container": STATE | {"containers": [[]]},
    "no list of addresses": STATE | {"pod_ips": {"a": "b"}},
    "an address that is a number": STATE | {"pod_ips": [1]},
    "a field of its own": STATE | {"hello": 1},
    "a depth without end": "[" * 200_000,
    "too much": json.dumps(STATE) + " " * (1 << 20),
}


@pytest.mark.parametrize("name", HOSTILE_STATES)
def test_a_state_that_no_runner_writes_is_an_error_and_hides_nothing_else(root: Path, name: str) -> None:
    replace(pod(root, "a1") / "job-id", "7\n")
    replace(root / "pods" / "a1" / "state.json", HOSTILE_STATES[name])
    watcher = Watcher(root)
    try:
        assert "can't read" in watcher.next()["error"]
        told = watcher.next()
        assert told == EMPTY | {"job_id": "7", "submitted_at": told["submitted_at"]}
        assert watcher.next() == {"synced": True}
    finally:
        watcher.close()


@pytest.mark.parametrize("claim", [{"job_id": "--user=alice", "restart": 0}, {"job_id": "9999999999", "restart": 0}, {"job_id": "7"}, {"job_id": "\u0663", "restart": 0}, {}])  # fmt: skip
def test_a_claim_that_names_no_job_is_an_error_and_no_claim(root: Path, watcher: Watcher, claim: object) -> None:
    assert watcher.next() == EMPTY
    assert watcher.next() == {"synced": True}
    (root / "pods" / "a1" / "run").mkdir()
    replace(root / "pods" / "a1" / "run" / "claim", claim)
    assert "can't read" in watcher.next()["error"]


def test_a_pipe_or_a_link_in_place_of_the_state_is_an_error_and_no_wait(root: Path, watcher: Watcher) -> None:
    assert watcher.next() == EMPTY
    assert watcher.next() == {"synced": True}
    os.mkfifo(root / "pods" / "a1" / "state.json")
    assert "can't read" in watcher.next()["error"]
    directory = pod(root, "b2")
    (directory / "state.json").symlink_to("/dev/zero")
    while (line := watcher.next())["uid"] != "b2":
        pass
    assert "error" in line or "error" in watcher.next()


def test_a_look_that_takes_minutes_says_meanwhile_that_it_lives(root: Path) -> None:
    """Thousands of pods on a file system that takes its time: a silence of 30 s is taken for a dead line."""
    for number in range(60):
        pod(root, f"p{number}")
    said, seconds = io.StringIO(), itertools.count()
    voice = Voice(said, clock=lambda: float(next(seconds)))
    watch = Watch(Root(str(root)), voice.say, voice.alive)
    watch.scan()
    said.truncate(0)
    watch.scan()
    assert said.getvalue().count("ping") >= 10


USAGE = {"job_id": "7", "restart": 0, "time": 5.0, "containers": [], "probes": []}


@pytest.mark.parametrize("usage", [USAGE, USAGE | {"time": "now"}, "[" * 100_000])
def test_usage_of_a_pod_that_runs_is_told_or_an_error_of_its_own(root: Path, usage: object) -> None:
    directory = pod(root, "a1")
    (directory / "run").mkdir()
    replace(directory / "state.json", STATE)
    replace(directory / "run" / "usage.json", usage)
    watcher = Watcher(root)
    try:
        assert watcher.next()["state"] == STATE
        line = watcher.next()
        assert line == {"uid": "a1", "usage": USAGE} if usage is USAGE else "usage" in line["error"]
        assert watcher.next() == {"synced": True}
    finally:
        watcher.close()


def test_it_ends_when_its_parent_has_gone(watcher: Watcher) -> None:
    watcher.next()
    assert watcher.process.stdin is not None
    watcher.process.stdin.close()
    assert watcher.process.wait(timeout=60) == 0


def test_root_without_pods_is_synced_at_once(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path / "none")
    assert watcher.next() == {"synced": True}
    watcher.close()
