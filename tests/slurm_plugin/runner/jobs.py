"""Real runs of the pod runner, each in a process of its own, with the ``process`` runtime and quick timings."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from slurm_plugin.jobdir import JobDir
from slurm_plugin.runner import plan
from slurm_plugin.runner.backoff import Timings
from slurm_plugin.runner.proctree import descendants
from slurm_plugin.runner.state import ContainerState, RunnerState, state_from_json

PROJECT = Path(__file__).parents[3]
QUICK = Timings(base=0.2, limit=0.8, reset=60.0, look=0.5)
_PROGRAM = """\
import sys
sys.path.insert(0, sys.argv[1])
from slurm_plugin.runner.backoff import Timings
from slurm_plugin.runner.run import run_pod
sys.exit(run_pod(sys.argv[2], Timings(*map(float, sys.argv[3:]))))
"""


def exec_action(*command: str) -> plan.Action:
    return plan.Action("exec", command, "", 0, "", "", (), 0)


def probe(action: plan.Action, **changes: int) -> plan.Probe:
    return plan.Probe(action, 0, 1, 1, 1, 3, -1)._replace(**changes)


def container(name: str, *command: str, **changes: Any) -> plan.Container:
    return plan.Container(
        name=name,
        kind=plan.APP,
        image=plan.Image("busybox", "docker://docker.io/library/busybox:latest", "IfNotPresent", insecure=False),
        command=command or None,
        args=None,
        working_dir="",
        restart_policy="Never",
        mounts=(),
        termination_message_path="/dev/termination-log",
        termination_message_policy="File",
        read_only_root=False,
        gpu="",
        stdin=False,
        stdin_once=False,
        tty=False,
        startup_probe=None,
        liveness_probe=None,
        readiness_probe=None,
        post_start=None,
        pre_stop=None,
    )._replace(**changes)


def shell(name: str, script: str, **changes: Any) -> plan.Container:
    return container(name, "/bin/sh", "-c", script, **changes)


def pod(*containers: plan.Container, **changes: Any) -> plan.Plan:
    return plan.Plan(
        version=plan.VERSION,
        namespace="default",
        name="web",
        uid="6d0f1d5e",
        hostname="web",
        host_aliases=(),
        restart_policy="Never",
        grace_seconds=5,
        deadline_seconds=0,
        runtime=plan.Runtime("process", "", ()),
        images="",
        scratch="",
        log_max_bytes=0,
        log_max_files=5,
        volumes=(),
        containers=tuple(containers),
    )._replace(**changes)


def many_sided(**changes: Any) -> plan.Plan:
    """Return a pod that uses most of the runner: an init container, a sidecar, a restart, hooks, probes, a FIFO of an end."""
    files = "$SLURMLET_FILES"
    again = (
        f"n=$(cat {files}/n 2>/dev/null || echo 0); echo $((n + 1)) > {files}/n; echo run $n; exit $((n == 0 ? 3 : 0))"
    )
    waiting = "trap 'echo ended; exit 0' TERM; while :; do sleep 0.05; done"
    return pod(
        shell("init", f"echo first > {files}/init", kind=plan.INIT, restart_policy="OnFailure"),
        shell("side", waiting, kind=plan.SIDECAR, restart_policy="Always",
              startup_probe=probe(exec_action("/bin/sh", "-c", f"test -e {files}/init"), timeout=20)),
        shell("again", again, restart_policy="OnFailure"),
        shell("probed", f"until test -e {files}/n; do sleep 0.05; done; echo $VALUE; sleep 2", restart_policy="OnFailure",
              post_start=exec_action("/bin/sh", "-c", f"echo hook > {files}/hook"),
              readiness_probe=probe(exec_action("/bin/sh", "-c", f"test -e {files}/hook"), timeout=20)),
        restart_policy="OnFailure",
        **changes,
    )  # fmt: skip


def assert_many_sided(job: "Job", code: int) -> None:
    """Assert that such a pod went as it has to."""
    state = job.state()
    assert (code, state.final) == (0, True), state
    counts = {each.name: each.restart_count for each in state.containers}
    assert counts == {"init": 0, "side": 0, "again": 1, "probed": 0}
    assert (job.log("again", 0), job.log("again", 1)) == (["stdout F run 0"], ["stdout F run 1"])
    assert job.log("probed") == ["stdout F it's ☃"]
    assert job.log("side") == ["stdout F ended"]


class Job:
    """A job directory and the runners started on it."""

    def __init__(self, path: Path, what: plan.Plan, env: Mapping[str, Sequence[plan.EnvEntry]] | None = None) -> None:
        self.directory = JobDir(str(path))
        path.mkdir(parents=True, exist_ok=True)
        scratch = path.parent / "scratch"
        scratch.mkdir(exist_ok=True)
        what = what._replace(scratch=what.scratch or str(scratch))
        Path(self.directory.plan).write_text(json.dumps(plan.to_json(what)))
        for name, entries in (env or {}).items():
            file = Path(self.directory.env(name))
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps([plan.to_json(entry) for entry in entries]))
        self.scratch = Path(what.scratch)
        self.processes: list[subprocess.Popen[str]] = []

    def start(
        self,
        *,
        job_id: str = "42",
        restart: int = 0,
        timings: Timings = QUICK,
        python: str = "",
        source: Path = PROJECT,
        output: IO[str] | int = subprocess.PIPE,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        variables = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": job_id, "SLURMD_NODENAME": "cn1"} | dict(
            environment or {}
        )
        if restart:
            variables["SLURM_RESTART_COUNT"] = str(restart)
        argv = [
            python or sys.executable,
            "-I",
            "-S",
            "-c",
            _PROGRAM,
            str(source),
            self.directory.path,
            *map(str, timings),
        ]
        process = subprocess.Popen(argv, env=variables, stdout=output, stderr=subprocess.STDOUT, text=True, cwd="/")
        self.processes.append(process)
        return process

    def run(self, *, job_id: str = "42", restart: int = 0, python: str = "", source: Path = PROJECT) -> int:
        process = self.start(job_id=job_id, restart=restart, python=python, source=source)
        output, _ = process.communicate(timeout=60)
        assert "Traceback" not in output, output
        sys.stdout.write(output)  # shown when the test fails
        return process.returncode

    def state(self) -> RunnerState:
        return state_from_json(json.loads(Path(self.directory.state).read_text()))

    def container(self, name: str) -> ContainerState:
        return next(state for state in self.state().containers if state.name == name)

    def reasons(self, container: str | None = None) -> list[str]:
        return [event.reason for event in self.state().events if container in (None, event.container)]

    def log(self, name: str, restart: int = 0) -> list[str]:
        """The lines of a container's log without their times."""
        text = Path(self.directory.log(name, restart)).read_text()
        return [line.split(" ", 1)[1] for line in text.splitlines()]

    def wait_until(self, check: Callable[["Job"], bool], *, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if check(self):
                    return
            except FileNotFoundError:
                pass
            time.sleep(0.01)
        state = Path(self.directory.state)
        raise AssertionError(f"not so after {seconds} s: {state.read_text() if state.exists() else 'no state'}")

    def close(self) -> None:
        """End what was started. Without a PID namespace nobody does it for the containers of a runner that is killed."""
        for process in self.processes:
            alive = process.poll() is None
            for pid in (process.pid, *(each.pid for each in descendants(process.pid))) if alive else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.communicate()
