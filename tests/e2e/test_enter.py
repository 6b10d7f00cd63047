"""Entering pods where they really run: the provider's exec, attach and connect on both Hosts, and `kubectl debug`."""

import asyncio
import hashlib
import os
import re
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from slurm_plugin import archive
from slurm_plugin.clients.command import CommandClient
from slurm_plugin.config import SiteSettings
from slurm_plugin.contract import ContainerProcess, PodContent, PodReport, Snapshot
from slurm_plugin.errors import HostError, PodNotFoundError, TransportError
from slurm_plugin.job import PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.provider import SlurmProvider
from slurm_plugin.runner.plan import EnvEntry
from slurm_plugin.runner.state import Running

from .pods import Pods
from .runtimes import program
from .test_command_client import on_the_login_node, over_ssh
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

IDLE_SECONDS = 3
ODD = "'quotes\" $(id) `id` \\ and\nlines é"
SERVER = "echo ready; while :; do nc -l -p 18765 -e cat; done"
MEBIBYTE = 1 << 20
OF_A_STEP = {"REQUEST_HET_JOB_ALLOC_INFO", "REQUEST_JOB_STEP_CREATE", "REQUEST_STEP_COMPLETE"}


@dataclass
class Entered:
    """A provider with one pod of three containers, running."""

    provider: SlurmProvider
    uid: PodUid
    testbed: Testbed
    reports: dict[PodUid, PodReport]

    @property
    def job_id(self) -> str:
        return str(self.reports[self.uid].job_id)

    def steps(self) -> list[str]:
        """The helper steps that Slurm has recorded for the job: running and ended."""
        line = self.testbed.run("sacct", "-n", "-P", "-o", "jobid,jobname", "-j", self.job_id).stdout
        return [entry for entry in line.split() if entry.endswith("|slurmlet-enter")]

    def open_files(self) -> dict[str, int]:
        """How many files are open in each process of the pod's runner, its helper and its srun."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                if any(word.endswith(f"/pods/{self.uid}".encode()) for word in words):
                    found[process.name] = len(list((process / "fd").iterdir()))
            except OSError:
                continue  # it has ended
        return found

    def requests(self) -> dict[str, int]:
        """How often slurmctld was asked what srun asks it for a step, by the name of the request: by anybody."""
        counts = re.findall(r"^\s+(\w+)\s+\(\s*\d+\)\s+count:(\d+)", self.testbed.run("sdiag").stdout, re.MULTILINE)
        return {name: int(count) for name, count in counts if name in OF_A_STEP}

    def running_steps(self) -> str:
        return self.testbed.run("squeue", "-h", "-s", "-j", self.job_id, "-o", "%j").stdout

    async def outcome(
        self, *argv: str, container: str = "main", stdin: bytes | None = None, tty: bool = False
    ) -> tuple[int, bytes, bytes]:
        async with self.provider.exec(self.uid, container, argv, stdin=stdin is not None, tty=tty) as process:
            if stdin is not None:
                await process.write(stdin)
                await process.close_stdin()
            out, errors = await asyncio.gather(_all(process.read), _all(process.read_error))
            return await process.wait(), out, errors


async def _all(read: object) -> bytes:
    data = b""
    while more := await read():  # type: ignore[operator]
        data += more
    return data


def pod_of(uid: str, containers: Sequence[dict[str, object]]) -> Pod:
    metadata = {"name": "entered", "namespace": "default", "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"}
    spec = {"restartPolicy": "Always", "terminationGracePeriodSeconds": 1, "containers": list(containers)}
    return Pod.model_validate({"metadata": metadata, "spec": spec})


def shell(name: str, script: str, **fields: object) -> dict[str, object]:
    return {"name": name, "image": "busybox:1.36", "command": ["sh", "-c", script], **fields}


@asynccontextmanager
async def running_pod(testbed: Testbed, kind: str, runtime: str) -> AsyncIterator[Entered]:
    host = on_the_login_node(testbed) if kind == "local" else over_ssh(testbed)
    registry = testbed.environment["SLURMLET_TESTBED_REGISTRY"]
    settings = SiteSettings.model_validate(
        {
            "slurm": {
                "host": {"kind": "local"},
                "root": f"{{home}}/.enter-{uuid.uuid4().hex[:8]}",
                "enter_idle_seconds": IDLE_SECONDS,
            },
            "pods": {
                "runtime": {"kind": runtime, "executable": program()},
                "registries": [{"registry": "docker.io", "mirror": registry, "insecure": True}],
            },
        }
    )
    client = CommandClient(host, user="alice")
    provider = SlurmProvider(host, client, settings, archive=archive.build(), node="enter", owner="the test")
    uid, reports, ready = PodUid(str(uuid.uuid4())), dict[PodUid, PodReport](), asyncio.Event()
    containers = (
        shell("main", "echo ready; exec sleep 3600", workingDir="/usr"),
        shell("other", SERVER),
        shell("mortal", "trap 'exit 1' USR1; while :; do sleep 0.1; done"),
    )

    async def watch() -> None:
        async with aclosing(provider.reports()) as stream:
            async for item in stream:
                for report in item.reports if isinstance(item, Snapshot) else (item,):
                    if isinstance(report, PodReport):
                        reports[report.uid] = report
                    states = report.runner.containers if isinstance(report, PodReport) and report.runner else ()
                    if states and all(isinstance(state.state, Running) for state in states):
                        ready.set()

    watching = asyncio.create_task(watch())
    try:
        env = {"main": (EnvEntry("ODD", ODD, expand=False, node_field=""),)}
        await provider.submit(pod_of(uid, containers), PodContent(env=env))
        await asyncio.wait_for(ready.wait(), 120)
        yield Entered(provider, uid, testbed, reports)
    finally:
        with suppress(TransportError):  # the test closed the provider, and cancelled the job itself
            await provider.terminate(uid, 0)
        watching.cancel()
        await asyncio.wait({watching})
        await provider.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["local", "ssh"])
async def entered(request: pytest.FixtureRequest, testbed: Testbed) -> AsyncIterator[Entered]:
    async with running_pod(testbed, request.param, "apptainer") as pod:
        yield pod


async def test_the_first_exec_starts_a_step_and_the_others_use_it(entered: Entered) -> None:
    assert await entered.outcome("true") == (0, b"", b"")
    steps = entered.steps()
    for code in range(5):
        assert (await entered.outcome("sh", "-c", f"exit {code}"))[0] == code
    assert entered.steps() == steps
    assert len(steps) == 1


async def test_two_hundred_commands_are_one_step_ask_slurm_nothing_and_leave_nothing_open(entered: Entered) -> None:
    await entered.outcome("true")
    steps, before = entered.steps(), entered.open_files()
    asked = entered.requests()
    assert asked["REQUEST_JOB_STEP_CREATE"] >= 1
    assert len(before) >= 2, before
    for _ in range(10):
        assert {code for code, _, _ in await asyncio.gather(*(entered.outcome("true") for _ in range(20)))} == {0}
    assert entered.steps() == steps
    assert len(steps) == 1
    more = {name: count - asked.get(name, 0) for name, count in entered.requests().items()}
    print("asked of slurmctld meanwhile:", more)
    assert max(more.values()) < 20, "tests that run beside this one start a few steps"
    await asyncio.to_thread(wait_until, "the files of before", lambda: entered.open_files() == before, seconds=20)


async def test_a_command_is_in_its_container(entered: Entered) -> None:
    code, out, _ = await entered.outcome("sh", "-c", 'pwd; id -u; cat /proc/1/comm; printf %s "$ODD"')
    directory, user, _first, *rest = out.decode().split("\n")
    assert (code, directory, "\n".join(rest)) == (0, "/usr", ODD)
    assert user == entered.testbed.run("id", "-u", "alice", check=False).stdout.strip() or user.isdigit()
    assert (await entered.outcome("sh", "-c", "pwd", container="other"))[1] == b"/\n"


async def test_what_can_not_be_run_is_said_as_everywhere(entered: Entered) -> None:
    assert await entered.outcome("nosuch") == (127, b"", b'exec: "nosuch": executable file not found in $PATH\n')
    assert await entered.outcome("/etc/passwd") == (126, b"", b'exec: "/etc/passwd": permission denied\n')
    with pytest.raises(PodNotFoundError, match='container not found \\("none"\\)'):
        await entered.outcome("true", container="none")


async def test_a_terminal_is_one_of_the_containers(entered: Entered) -> None:
    async with entered.provider.exec(entered.uid, "main", ["sh"], stdin=True, tty=True) as process:
        await process.resize(101, 33)
        await process.write(b"tty; stty size; ls -d $(tty); exit 7\n")
        said = await _all(process.read)
        assert await process.wait() == 7
    assert b"33 101\r\n" in said
    assert said.count(b"\r\n/dev/pts/") >= 2


async def test_twenty_at_once_and_one_that_is_stuck(entered: Entered) -> None:
    async with entered.provider.exec(entered.uid, "main", ["cat", "/dev/zero"], stdin=False, tty=False):
        calls = [entered.outcome("sh", "-c", f"cat; exit {n}", stdin=b"%d" % n * 10_000) for n in range(20)]
        for number, (code, out, _) in enumerate(await asyncio.gather(*calls)):
            assert (code, out) == (number, b"%d" % number * 10_000)


async def _through(write: object, close: object, read: object, size: int) -> float:
    """Send random bytes and compare what comes back; MB/s."""
    block = os.urandom(MEBIBYTE)
    sent, received, count = hashlib.sha256(), hashlib.sha256(), 0

    async def feed() -> None:
        for _ in range(size):
            sent.update(block)
            await write(block)  # type: ignore[operator]
        await close()  # type: ignore[operator]

    began = time.monotonic()
    feeding = asyncio.create_task(feed())
    while data := await read():  # type: ignore[operator]
        received.update(data)
        count += len(data)
    await feeding
    assert (count, received.digest()) == (size * MEBIBYTE, sent.digest())
    return size * MEBIBYTE / 1e6 / (time.monotonic() - began)


async def test_megabytes_pass_unchanged_through_exec(entered: Entered) -> None:
    async with entered.provider.exec(entered.uid, "main", ["cat"], stdin=True, tty=False) as process:
        rate = await _through(process.write, process.close_stdin, process.read, 32)
        assert await process.wait() == 0
    print(f"exec, there and back: {rate:.0f} MB/s")


async def test_a_port_is_reached_and_a_refused_one_said(entered: Entered) -> None:
    async with entered.provider.connect(entered.uid, 18765) as connection:
        rate = await _through(connection.write, connection.close_write, connection.read, 8)
    print(f"port, there and back: {rate:.0f} MB/s")
    with pytest.raises(HostError, match="failed to connect to localhost:9 of the pod"):
        async with entered.provider.connect(entered.uid, 9):
            pass


async def test_attached_clients_see_the_output_from_now_on(entered: Entered) -> None:
    async with entered.provider.attach(entered.uid, "mortal", stdin=False) as process:
        await entered.outcome("sh", "-c", "kill -USR1 1 || kill -USR1 $(pgrep -o sh)", container="mortal")
        assert await asyncio.wait_for(_all(process.read), 60) == b""
        assert await process.wait() == 1


async def test_a_restarted_container_can_be_entered_again(entered: Entered) -> None:
    def restarted() -> bool:
        runner = entered.reports[entered.uid].runner
        state = next(state for state in runner.containers if state.name == "mortal") if runner else None
        return state is not None and state.restart_count >= 1 and isinstance(state.state, Running)

    await asyncio.to_thread(wait_until, "the restart", restarted, seconds=90)
    assert (await entered.outcome("echo", "again", container="mortal"))[1] == b"again\n"


async def test_an_idle_helper_ends_and_a_new_one_comes_when_needed(entered: Entered) -> None:
    await entered.outcome("true")
    assert "slurmlet-enter" in entered.running_steps()
    gone = lambda: "slurmlet-enter" not in entered.running_steps()  # noqa: E731
    await asyncio.to_thread(wait_until, "the idle helper to end", gone, seconds=60)
    assert (await entered.outcome("echo", "back"))[1] == b"back\n"


async def test_closing_the_provider_leaves_no_step(testbed: Testbed) -> None:
    async with running_pod(testbed, "local", "process") as pod:
        process: ContainerProcess
        async with pod.provider.exec(pod.uid, "main", ["sleep", "987003"], stdin=False, tty=False) as process:
            await pod.provider.close()
            with pytest.raises(Exception, match="closed"):
                await process.wait()
        gone = lambda: "slurmlet-enter" not in pod.running_steps()  # noqa: E731
        await asyncio.to_thread(wait_until, "the step to end", gone, seconds=60)
        testbed.run("scancel", pod.job_id, check=False)


@pytest.mark.checklist(45, 51)
async def test_debug_adds_a_container_to_the_running_job(pods: Pods) -> None:
    pods.run("web", "sh", "-c", "echo hello > /tmp/x; sleep 600")
    pods.wait_phase("web", "Running")
    pods.kubectl("debug", "web", "--image=busybox:1.36", "--container=look", "--", "sh", "-c", "echo seen; exit 3")

    def ended() -> dict[str, object] | None:
        pod = pods.get("web")
        statuses = (pod or {}).get("status", {}).get("ephemeralContainerStatuses") or [{}]
        found: dict[str, object] | None = statuses[0].get("state", {}).get("terminated")
        return found

    ending = await asyncio.to_thread(wait_until, "the ephemeral container to end", ended, seconds=120)
    assert (ending["exitCode"], ending["reason"]) == (3, "Error")
    assert pods.kubectl("logs", "web", "--container=look") == "seen\n"
    pod = pods.get("web")
    assert pod is not None
    assert pod["status"]["phase"] == "Running"
    assert [status["restartCount"] for status in pod["status"]["containerStatuses"]] == [0]
    assert len(pods.jobs("web")) == 1
