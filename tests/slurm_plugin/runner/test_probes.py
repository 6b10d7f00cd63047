"""Probes and hooks of real containers of the ``process`` runtime."""

import os
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slurm_plugin.runner import network, plan, probes
from slurm_plugin.runner.actions import Outcome
from slurm_plugin.runner.loop import Loop
from slurm_plugin.runner.network import tcp
from slurm_plugin.runner.state import Running, Terminated, Waiting

from .conftest import MakeJob
from .jobs import Job, container, exec_action, pod, probe, shell

_SERVER = """\
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/moved":
            self.send_response(302); self.send_header("Location", "/ok")
        elif self.path == "/nowhere":
            self.send_response(302); self.send_header("Location", "http://[x")
        else:
            self.send_response(500 if self.path == "/bad" else 204)
        self.end_headers()
    def log_message(self, *_): print(self.headers["X-Probe"], flush=True)
http.server.HTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
"""
_FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
_UP = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


def server(port: int, **changes: plan.Probe) -> plan.Container:
    return container("web", sys.executable, "-c", _SERVER, str(port), **changes)


def http(port: int, path: str = "/ok") -> plan.Action:
    return plan.Action("http", (), "", port, path, "HTTP", (("X-Probe", "yes"),), 0)


def end(job: Job) -> None:
    process = job.processes[-1]
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert "Traceback" not in output, output


@pytest.mark.parametrize("path", ["/ok", "/moved"])
def test_http_readiness_makes_a_container_ready(job: MakeJob, port: int, path: str) -> None:
    j = job(pod(server(port, readiness_probe=probe(http(port, path)))))
    j.start()
    j.wait_until(lambda j: j.container("web").ready)
    end(j)
    assert "stderr F yes" in j.log("web") or "stdout F yes" in j.log("web")


def test_http_failure_is_unready_and_said(job: MakeJob, port: int) -> None:
    j = job(pod(server(port, readiness_probe=probe(http(port, "/bad")))))
    j.start()
    j.wait_until(lambda j: any("statuscode: 500" in event.message for event in j.state().events))
    assert not j.container("web").ready
    assert j.container("web").started
    end(j)


def test_an_answer_that_leads_nowhere_fails_the_probe_and_not_the_pod(job: MakeJob, port: int) -> None:
    nowhere = plan.Action("tcp", (), "a..b", port, "", "", (), 0)
    odd = shell("odd", _FOREVER, readiness_probe=probe(nowhere))
    j = job(pod(server(port, readiness_probe=probe(http(port, "/nowhere"))), odd))
    j.start()
    for words in ("lookup a..b", 'Get "http'):
        j.wait_until(
            lambda j, words=words: any(words in e.message for e in j.state().events if e.reason == "Unhealthy")
        )
    assert all(isinstance(each.state, Running) and not each.ready for each in j.state().containers)
    end(j)


def test_a_slow_resolver_holds_up_its_own_probe_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def slow(*arguments: Any) -> Any:
        if not arguments[-1] & socket.AI_NUMERICHOST:
            time.sleep(600)
        return real(*arguments)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    loop = Loop()
    turns: list[float] = []

    async def tick() -> None:
        while True:
            turns.append(loop.now())
            await loop.sleep(0.02)

    loop.spawn(tick(), "tick")
    begun = loop.now()
    assert loop.run(tcp(loop, "slow.example", 80, 1.0)) == (False, "dial tcp slow.example:80: i/o timeout")
    assert loop.now() - begun < 300
    assert len(turns) > 1, "meanwhile the loop went on"


def test_a_request_without_a_limit_waits_for_its_answer(port: int) -> None:
    class Fast(Loop):
        """A minute is half a second."""

        def now(self) -> float:
            return time.monotonic() * 120

    loop = Fast()

    async def tick() -> None:
        while True:
            await loop.sleep(0.02)

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            time.sleep(1.5)
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\ndrained")

    loop.spawn(tick(), "tick")
    with socket.create_server(("127.0.0.1", port)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        assert loop.run(network.http(loop, "127.0.0.1", http(port, "/drain"), None)) == (True, "drained")
        server.join()


@pytest.mark.slow
def test_a_request_that_is_cut_short_by_the_containers_end_leaves_nothing_behind(job: MakeJob, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    listening = (
        "import socket, time; s = socket.create_server(('', 0)); "
        f"print(s.getsockname()[1], file=open({str(tmp_path / 'port')!r}, 'w')); time.sleep(3600)"
    )
    deaf = container("deaf", sys.executable, "-c", listening)
    j = job(pod(deaf))
    j.start()
    j.wait_until(lambda _: bool((tmp_path / "port").read_text().strip()))
    hung = probe(http(int((tmp_path / "port").read_text())), timeout=60)
    again = f"echo run >> {runs}; sleep 0.4; test $(wc -l < {runs}) -ge 6"
    other = job(pod(shell("a", again, restart_policy="OnFailure", liveness_probe=hung, readiness_probe=hung)))
    assert other.run(job_id="43") == 0
    end(j)


@pytest.mark.slow
def test_a_node_without_room_for_another_process_lets_the_pod_wait(job: MakeJob) -> None:
    crashing = shell("crashing", "exit 3", restart_policy="Always")
    probed = shell("probed", _FOREVER, readiness_probe=probe(exec_action("true"), failure_threshold=1))
    j = job(pod(crashing, probed))
    runner = j.start()
    j.wait_until(lambda j: j.container("probed").ready)
    _, most = resource.prlimit(runner.pid, resource.RLIMIT_NOFILE)
    # No pipe any more, but a file at a time, as state.json takes: what is open above the limit stays open.
    used = {int(name) for name in os.listdir(f"/proc/{runner.pid}/fd")}
    free = next(number for number in range(most) if number not in used)
    resource.prlimit(runner.pid, resource.RLIMIT_NOFILE, (free + 1, most))
    try:
        j.wait_until(lambda j: any("Too many open files" in event.message for event in j.state().events))
        j.wait_until(lambda j: isinstance(j.container("crashing").state, Waiting) and not j.container("probed").ready)
    finally:
        resource.prlimit(runner.pid, resource.RLIMIT_NOFILE, (most, most))
    before = j.container("crashing").restart_count
    j.wait_until(lambda j: j.container("probed").ready and j.container("crashing").restart_count > before)
    end(j)


def test_tcp_readiness_is_a_connection(job: MakeJob, port: int) -> None:
    j = job(pod(server(port, readiness_probe=probe(plan.Action("tcp", (), "", port, "", "", (), 0)))))
    j.start()
    j.wait_until(lambda j: j.container("web").ready)
    end(j)


def test_container_without_probes_is_ready_at_once(job: MakeJob) -> None:
    j = job(pod(shell("a", _FOREVER)))
    j.start()
    j.wait_until(lambda j: j.container("a").ready and j.container("a").started)
    end(j)


def test_exec_readiness_follows_the_container(job: MakeJob, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    j = job(pod(shell("a", _FOREVER, readiness_probe=probe(exec_action("test", "-e", str(mark)), failure_threshold=1))))
    j.start()
    j.wait_until(lambda j: "Unhealthy" in j.reasons("a"))
    assert not j.container("a").ready
    mark.touch()
    j.wait_until(lambda j: j.container("a").ready)
    mark.unlink()
    j.wait_until(lambda j: not j.container("a").ready)
    end(j)


def test_exec_probe_has_the_containers_environment_and_directory(job: MakeJob, tmp_path: Path) -> None:
    action = exec_action("/bin/sh", "-c", 'test "$VALUE" = "$(printf \'a"b\')" && test "$PWD" = ' + str(tmp_path))
    j = job(
        pod(shell("a", _FOREVER, readiness_probe=probe(action), working_dir=str(tmp_path))),
        {"a": [plan.EnvEntry("VALUE", 'a"b', expand=False, node_field="")]},
    )
    j.start()
    j.wait_until(lambda j: j.container("a").ready)
    end(j)


def test_probe_that_takes_too_long_fails(job: MakeJob) -> None:
    j = job(pod(shell("a", _FOREVER, readiness_probe=probe(exec_action("sleep", "60")))))
    j.start()
    j.wait_until(lambda j: any("timed out after 1s" in event.message for event in j.state().events))
    end(j)


def test_liveness_failure_restarts_the_container(job: MakeJob) -> None:
    failing = probe(exec_action("false"), failure_threshold=2, timeout=60)
    j = job(pod(shell("a", _FOREVER, restart_policy="Always", liveness_probe=failing)))
    j.start()
    j.wait_until(lambda j: j.container("a").restart_count >= 1)
    events = {event.message: event.times for event in j.state().events}
    assert events["Liveness probe failed: "] >= 2
    assert "Container a failed liveness probe, will be restarted" in events
    end(j)


def _until(file: Path) -> str:
    return f"until test -e {file}; do sleep 0.02; done"


def _fails_once(ready: Path) -> plan.Action:
    """What fails as soon as a container is ready to be ended and not before, however slow the machine; once for each time."""
    return exec_action("sh", "-c", f"{_until(ready)}; rm {ready}; exit 1")


def _failing_once(ready: Path, **changes: int) -> plan.Probe:
    return probe(_fails_once(ready), failure_threshold=1, timeout=60, **changes)


@pytest.mark.parametrize("kind", ["startup_probe", "liveness_probe"])
def test_a_container_that_a_probe_ended_runs_again_under_on_failure_whatever_its_exit_code(
    job: MakeJob, tmp_path: Path, kind: str
) -> None:
    runs, ready = tmp_path / "runs", tmp_path / "ready"
    obliging = (
        f"echo run >> {runs}; test $(wc -l < {runs}) -gt 3 && exit 0; trap 'exit 0' TERM; touch {ready}; "
        "while :; do sleep 0.05; done"
    )
    probes: dict[str, Any] = {kind: _failing_once(ready)}  # which the fourth run never is
    j = job(pod(shell("a", obliging, restart_policy="OnFailure", **probes), restart_policy="OnFailure"))
    process, seen = j.start(), []
    while process.poll() is None:
        if Path(j.directory.state).exists():
            seen.append(j.container("a"))
        time.sleep(0.01)
    assert process.returncode == 0
    last = j.container("a").last
    assert runs.read_text().split() == ["run"] * 4
    assert j.container("a").restart_count == 3
    assert last is not None
    assert last.exit_code == 0
    # What the API server was told as ended with code 0 could not run again under this policy.
    told = [each.restart_count for each in seen if isinstance(each.state, Terminated)]
    assert set(told) <= {3}
    counts = [each.restart_count for each in seen]
    assert counts == sorted(counts)


def test_what_a_probe_finds_of_a_run_that_has_ended_does_not_end_the_next(job: MakeJob, tmp_path: Path) -> None:
    first, begun, sick = (tmp_path / name for name in ("first", "begun", "sick"))
    # The first run ends between two probes; until its output is read (a process of another session holds it) it is not gone.
    once = f"touch {first} {begun}; sleep 0.3; setsid sleep 3 & rm {begun}; : > {sick}; exit 1"
    script = f"test -e {first} || {{ {once}; }}; rm {sick}; touch {begun}; {_FOREVER}"
    healthy = probe(exec_action("/bin/sh", "-c", f"! test -e {sick}"), failure_threshold=1, timeout=60)
    # The second is looked at when it has taken away what was left of the first.
    up = probe(exec_action("/bin/sh", "-c", _until(begun)), timeout=60)
    j = job(pod(shell("a", script, restart_policy="Always", startup_probe=up, liveness_probe=healthy)))
    j.start()
    j.wait_until(lambda j: j.container("a").restart_count == 1 and j.container("a").started)
    assert [event.message for event in j.state().events if event.reason == "Killing"] == []
    end(j)


def test_startup_probe_gates_the_others(job: MakeJob, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    j = job(
        pod(
            shell(
                "a",
                _FOREVER,
                startup_probe=probe(exec_action("test", "-e", str(mark)), failure_threshold=60),
                liveness_probe=probe(exec_action("test", "-e", str(mark)), failure_threshold=1, timeout=60),
            )
        )
    )
    j.start()
    j.wait_until(lambda j: any("Startup probe failed" in event.message for event in j.state().events))
    assert isinstance(j.container("a").state, Running)
    assert not j.container("a").started
    mark.touch()
    j.wait_until(lambda j: j.container("a").started)
    assert j.container("a").restart_count == 0
    end(j)


def test_startup_failure_ends_the_container(job: MakeJob, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'exit 6' TERM; touch {ready}; while :; do sleep 0.05; done"
    j = job(pod(shell("a", script, startup_probe=_failing_once(ready))))
    assert j.run() == 6
    assert "Container a failed startup probe" in [event.message for event in j.state().events]


def test_post_start_runs_before_the_container_is_ready(job: MakeJob, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    j = job(pod(shell("a", _FOREVER, post_start=exec_action("/bin/sh", "-c", f"sleep 0.3; touch {mark}"))))
    j.start()
    j.wait_until(lambda j: j.container("a").ready)
    assert mark.exists()
    end(j)


def test_failed_post_start_ends_the_container(job: MakeJob, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'exit 6' TERM; touch {ready}; while :; do sleep 0.05; done"
    j = job(pod(shell("a", script, post_start=_fails_once(ready))))
    assert j.run() == 6
    assert "FailedPostStartHook" in j.reasons("a")


def test_pre_stop_runs_before_term(job: MakeJob, tmp_path: Path) -> None:
    order = tmp_path / "order"
    main = f"trap 'echo term >> {order}; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    j = job(pod(shell("a", main, pre_stop=exec_action("/bin/sh", "-c", f"sleep 0.2; echo hook >> {order}"))))
    j.start()
    j.wait_until(lambda j: j.log("a") == ["stdout F up"])
    end(j)
    assert order.read_text().split() == ["hook", "term"]


def test_pre_stop_can_not_outlive_the_grace_period(job: MakeJob) -> None:
    j = job(pod(shell("a", _UP, pre_stop=exec_action("sleep", "60")), grace_seconds=1))
    j.start()
    j.wait_until(lambda j: j.log("a") == ["stdout F up"])
    end(j)
    ending = j.container("a").state
    assert isinstance(ending, Terminated)
    assert ending.exit_code == 0


@pytest.mark.parametrize("first", ["liveness", "sidecar"])
def test_the_pods_end_does_not_cut_short_a_pre_stop_that_runs_already(job: MakeJob, tmp_path: Path, first: str) -> None:
    order, ready = tmp_path / "order", tmp_path / "ready"
    main = f"trap 'echo term >> {order}; exit 0' TERM; touch {ready}; while :; do sleep 0.05; done"
    hook = exec_action("/bin/sh", "-c", f"echo begun >> {order}; sleep 1.5; echo ended >> {order}")
    if first == "liveness":
        j = job(pod(shell("a", main, pre_stop=hook, liveness_probe=_failing_once(ready)), grace_seconds=30))
    else:
        sidecar = shell("a", main, pre_stop=hook, kind=plan.SIDECAR, restart_policy="Always")
        j = job(pod(sidecar, shell("app", _until(ready)), grace_seconds=30))
    j.start()
    j.wait_until(lambda _: order.exists())
    end(j)
    assert order.read_text().split() == ["begun", "ended", "term"]


def test_failed_pre_stop_is_said(job: MakeJob) -> None:
    j = job(pod(shell("a", _UP, pre_stop=exec_action("false"))))
    j.start()
    j.wait_until(lambda j: j.log("a") == ["stdout F up"])
    end(j)
    assert "FailedPreStopHook" in j.reasons("a")


# Timings


def _times(file: Path) -> list[float]:
    return [float(line) for line in file.read_text().split()] if file.exists() else []


def _noting(file: Path) -> plan.Action:
    return exec_action(sys.executable, "-c", f"import time; print(time.time(), file=open({str(file)!r}, 'a'))")


def test_initial_delay_counts_from_the_containers_start_and_period_between_probes(job: MakeJob, tmp_path: Path) -> None:
    probed = tmp_path / "probed"
    delayed = probe(_noting(probed), initial_delay=2, timeout=10)
    j = job(pod(shell("a", _FOREVER, readiness_probe=delayed)))
    j.start()
    j.wait_until(lambda j: len(_times(probed)) >= 2)
    state = j.container("a").state
    assert isinstance(state, Running)
    first, second = (each - state.started_at for each in _times(probed)[:2])
    assert first >= 2
    assert second >= 3, "however late the node was with the first"
    end(j)


class _Clock:
    """What a prober knows of a loop: time, which only sleep and what is probed take."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


@pytest.mark.parametrize(
    ("takes", "turns"),
    [(0.5, [101, 103, 105, 107]), (2, [101, 103, 105, 107]), (3, [101, 104, 107, 110])],
)
def test_a_probe_that_hangs_does_not_make_the_periods_longer(
    takes: float, turns: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, begun = _Clock(), []

    async def hanging(*_: object) -> Outcome:
        begun.append(clock.time)
        clock.time += takes
        return Outcome(True, "")

    monkeypatch.setattr(probes, "perform", hanging)
    shared: Any = SimpleNamespace(loop=clock, probe_counts={})
    running: Any = SimpleNamespace(
        begun=clock.time, ended=False, setting=SimpleNamespace(container=SimpleNamespace(name="a"))
    )
    prober = probes.Prober(shared, running, "Readiness", probe(exec_action("true"), initial_delay=1, period=2))

    async def turn_and_turn_again() -> None:
        await prober.begin()
        for _ in turns:
            await prober.once()
            await prober.pause()

    with pytest.raises(StopIteration):
        turn_and_turn_again().send(None)
    assert begun == turns


def test_success_threshold_successes_in_a_row_make_a_container_ready(job: MakeJob, tmp_path: Path) -> None:
    probed, third = tmp_path / "probed", tmp_path / "third"
    script = f"echo >> {probed}; test $(wc -l < {probed}) -lt 3 || {_until(third)}"
    threefold = probe(exec_action("/bin/sh", "-c", script), success_threshold=3, timeout=60)
    j = job(pod(shell("a", _FOREVER, readiness_probe=threefold)))
    j.start()
    j.wait_until(lambda _: probed.read_text() == "\n\n\n")
    assert not j.container("a").ready, "of three that have begun two have succeeded"
    third.touch()
    j.wait_until(lambda j: j.container("a").ready)
    end(j)


@pytest.mark.parametrize("kind", ["startup_probe", "liveness_probe"])
def test_a_probes_own_grace_period_comes_before_the_pods(job: MakeJob, tmp_path: Path, kind: str) -> None:
    first, ready = tmp_path / "first", tmp_path / "ready"
    stubborn = f"test -e {first} && exit 0; trap '' TERM; touch {first} {ready}; while :; do sleep 0.05; done"
    probes: dict[str, Any] = {kind: _failing_once(ready, grace_seconds=2)}
    j = job(pod(shell("a", stubborn, restart_policy="OnFailure", **probes), grace_seconds=600))
    assert j.run() == 0
    last = j.container("a").last
    assert last is not None
    assert (last.exit_code, last.signal) == (137, 9)


@pytest.mark.parametrize(("lives", "result"), [(True, False), (False, None)])
def test_a_command_that_has_ended_by_itself_is_not_unhealthy_though_its_runtime_is_still_there(
    lives: bool, result: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: object) -> Outcome:
        return Outcome(False, "its namespaces are gone")

    monkeypatch.setattr(probes, "perform", failing)
    events: list[str] = []
    shared: Any = SimpleNamespace(
        book=SimpleNamespace(event=lambda reason, *_, **__: events.append(reason)), probe_counts={}
    )
    running: Any = SimpleNamespace(
        ended=False, lives=lives, setting=SimpleNamespace(container=SimpleNamespace(name="a"))
    )
    prober = probes.Prober(shared, running, "Liveness", probe(exec_action("true"), failure_threshold=1))
    with pytest.raises(StopIteration) as end:
        prober.once().send(None)
    assert (end.value.value, events) == (result, ["Unhealthy"] if lives else [])
