"""The helper step between a real Host and a real runner, without Slurm: what `kubectl exec` and `attach` stand on."""

import asyncio
import hashlib
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from slurm_plugin.errors import HostError, TransportError
from slurm_plugin.hosts.callback import called_back
from slurm_plugin.hosts.channel import skip_noise
from slurm_plugin.hosts.connection import Connection
from slurm_plugin.hosts.local import LocalHost
from slurm_plugin.hosts.stepchannel import StepChannel
from slurm_plugin.hosts.streams import ProcessStream
from slurm_plugin.runner import plan
from slurm_plugin.runner.proctree import processes
from slurm_plugin.runner.state import Terminated

from .jobs import PROJECT, Job, pod, shell

pytestmark = pytest.mark.asyncio(loop_scope="module")

_PROGRAM = """\
import sys
sys.path.insert(0, sys.argv[1])
from slurm_plugin.runner.enter import enter_pod
sys.exit(enter_pod(sys.argv[2]))
"""
ODD = "'quotes\" $(id) `id` \\ and\nlines"
FOREVER = "echo ready; exec sleep 600"


@asynccontextmanager
async def entered(job: Job, *, caller: str = "") -> AsyncIterator[Connection]:
    """The helper of a job, as the provider has it, but for srun. ``caller``: where Slurm says that it was called."""
    host = LocalHost()
    launch = ("env", f"SLURM_LAUNCH_NODE_IPADDR={caller}")
    python = (sys.executable, "-I", "-S", "-B", "-c", _PROGRAM, str(PROJECT), job.directory.path)
    channel = await StepChannel.open(host, launch + python)
    found, rest = await skip_noise(channel)
    assert found, await channel.ended()
    first = Connection("the helper", channel, rest)
    connection = await called_back(host, first, "the helper")
    try:
        assert (connection is first) == (caller != "127.0.0.1")
        yield connection
    finally:
        await connection.close()
        await host.close()


def running(make: Callable[..., Job], *containers: plan.Container, **changes: object) -> Job:
    """A job whose containers have all said that they are ready."""
    job = make(pod(*containers, **changes))
    job.start()
    for container in containers:
        job.wait_until(lambda j, name=container.name: "ready" in "".join(j.log(name)))
    return job


def execution(*argv: str, container: str = "a", stdin: bool = False, tty: bool = False) -> dict[str, object]:
    return {"op": "exec", "container": container, "argv": argv, "stdin": stdin, "tty": tty}


@asynccontextmanager
async def opened(connection: Connection, header: dict[str, object]) -> AsyncIterator[ProcessStream]:
    stream = await connection.open(header, name="it", timeout=30)
    try:
        yield stream
    finally:
        await connection.release(stream)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["", "127.0.0.1"], ids=["by srun", "called back"])
async def pod_entered(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Connection]:
    """The helper of a pod of two containers that go on, for the tests that leave it as it is."""
    env = {"a": [plan.EnvEntry("ODD", ODD, expand=False, node_field="")]}
    containers = (shell("a", FOREVER, working_dir="/usr"), shell("b", FOREVER))
    job = Job(tmp_path_factory.mktemp("pod") / "job", pod(*containers), env)
    try:
        job.start()
        for container in containers:
            job.wait_until(lambda j, name=container.name: "ready" in "".join(j.log(name)), seconds=30)
        async with entered(job, caller=request.param) as connection:
            yield connection
    finally:
        job.close()


async def read_all(read: Callable[[], object]) -> bytes:
    data = b""
    while more := await read():  # type: ignore[misc]
        data += more
    return data


async def outcome(connection: Connection, *argv: str, stdin: bytes | None = None) -> tuple[int, bytes, bytes]:
    async with opened(connection, execution(*argv, stdin=stdin is not None)) as stream:
        if stdin is not None:
            await stream.write(stdin)
            await stream.close_stdin()
        out, errors = await asyncio.gather(read_all(stream.read), read_all(stream.read_error))
        return await stream.wait(), out, errors


async def until(read: Callable[[], object], words: bytes) -> bytes:
    """Read until these words were read."""
    data = b""
    async with asyncio.timeout(20):
        while words not in data:
            more = await read()  # type: ignore[misc]
            assert more, data
            data += more
    return data


def named(word: str) -> list[int]:
    """The living processes that have this argument."""
    found = []
    for process in processes():
        try:
            if word.encode() in Path(f"/proc/{process.pid}/cmdline").read_bytes() and not process.zombie:
                found.append(process.pid)
        except OSError:
            continue
    return found


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


async def gone(word: str) -> None:
    async with asyncio.timeout(20):
        while named(word):  # noqa: ASYNC110 - nobody tells when a process ends
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("true",), (0, b"", b"")),
        (("sh", "-c", "echo out; echo err >&2; exit 3"), (3, b"out\n", b"err\n")),
        (("sh", "-c", "kill -KILL $$"), (137, b"", b"")),
        (("nosuch",), (127, b"", b'exec: "nosuch": executable file not found in $PATH\n')),
        (("/nosuch",), (127, b"", b'exec: "/nosuch": no such file or directory\n')),
        (("/etc",), (126, b"", b'exec: "/etc": permission denied\n')),
        (("printf", "%s|", "a b", "", "'\"\\$(id)`", "é\n"), (0, "a b||'\"\\$(id)`|é\n|".encode(), b"")),
    ],
)
async def test_a_command_ends_as_it_would_in_a_shell(
    pod_entered: Connection, argv: tuple[str, ...], expected: tuple[int, bytes, bytes]
) -> None:
    assert await outcome(pod_entered, *argv) == expected


async def test_a_command_has_the_containers_environment_and_directory(pod_entered: Connection) -> None:
    code, out, _ = await outcome(pod_entered, "sh", "-c", 'pwd; printf %s "$ODD"')
    assert (code, out) == (0, f"/usr\n{ODD}".encode())


async def test_input_passes_unchanged_and_ends(pod_entered: Connection) -> None:
    data = os.urandom(1 << 20) * 20
    async with opened(pod_entered, execution("cat", stdin=True)) as stream:

        async def feed() -> None:
            for start in range(0, len(data), 1 << 18):
                await stream.write(data[start : start + (1 << 18)])
            await stream.close_stdin()

        feeding = asyncio.create_task(feed())
        digest = hashlib.sha256()
        while more := await stream.read():
            digest.update(more)
        await feeding
        assert await stream.wait() == 0
    assert digest.digest() == hashlib.sha256(data).digest()


async def test_a_terminal_works_inside(pod_entered: Connection) -> None:
    async with opened(pod_entered, execution("sh", stdin=True, tty=True)) as stream:
        await stream.resize(101, 33)
        await stream.write(b"tty; stty size; echo $TERM; test -t 2 && echo yes; exit 7\n")
        said = await read_all(stream.read)
        assert await stream.wait() == 7
    assert b"/dev/pts/" in said
    assert b"33 101\r\n" in said
    assert b"xterm\r\nyes\r\n" in said


async def test_control_c_reaches_the_command_on_a_terminal(pod_entered: Connection) -> None:
    async with opened(pod_entered, execution("cat", stdin=True, tty=True)) as stream:
        await stream.write(b"go\n")
        await until(stream.read, b"go\r\ngo\r\n")  # the terminal's echo and cat's own: it runs, and no shell is between
        await stream.write(b"\x03")
        assert await asyncio.wait_for(stream.wait(), 20) == 130


async def test_many_commands_at_once_have_their_own_streams(pod_entered: Connection) -> None:
    calls = [outcome(pod_entered, "sh", "-c", f"cat; exit {n}", stdin=b"%d" % n * 50_000) for n in range(20)]
    for number, (code, out, _) in enumerate(await asyncio.gather(*calls)):
        assert (code, out) == (number, b"%d" % number * 50_000)


async def test_a_reader_that_is_stuck_blocks_nobody_else(pod_entered: Connection) -> None:
    async with opened(pod_entered, execution("cat", "/dev/zero")), opened(pod_entered, execution("yes")):
        await asyncio.sleep(0.3)
        assert (await outcome(pod_entered, "cat", stdin=b"through"))[1] == b"through"


async def test_leaving_ends_the_command_and_what_it_started(pod_entered: Connection) -> None:
    script = "trap '' TERM; sleep 987001 & echo on; while :; do sleep 987001; done"
    async with opened(pod_entered, execution("sh", "-c", script)) as stream:
        await until(stream.read, b"on")
        assert named("987001")
    await gone("987001")


@pytest.mark.parametrize("caller", ["", "127.0.0.1"])
async def test_a_lost_helper_ends_its_commands(job: Callable[..., Job], caller: str) -> None:
    what = running(job, shell("a", FOREVER))
    async with entered(what, caller=caller) as connection:
        async with opened(connection, execution("sh", "-c", "echo on; sleep 987002")) as stream:
            await until(stream.read, b"on")
            helpers = set(named("enter_pod")) & set(named(what.directory.path))
            assert helpers
            for pid in helpers:
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(TransportError):
                await stream.wait()
        await gone("987002")


async def test_a_caller_that_can_not_be_called_is_served_through_srun(job: Callable[..., Job]) -> None:
    what = running(job, shell("a", FOREVER))
    async with entered(what, caller="192.0.2.1") as connection:  # of no machine: RFC 5737
        assert await outcome(connection, "echo", "served") == (0, b"served\n", b"")


async def test_hanging_up_the_called_line_ends_its_commands_and_the_helper(job: Callable[..., Job]) -> None:
    what = running(job, shell("a", FOREVER))
    async with entered(what, caller="127.0.0.1") as connection:
        stream = await connection.open(execution("sh", "-c", "echo on; sleep 987003"), name="it", timeout=30)
        await until(stream.read, b"on")
        await connection.close()
        with pytest.raises(TransportError):
            await stream.wait()
        await gone("987003")
        assert not set(named("enter_pod")) & set(named(what.directory.path))


async def test_a_process_that_holds_the_output_open_does_not_hold_up_the_end(pod_entered: Connection) -> None:
    async with asyncio.timeout(20):
        code, out, _ = await outcome(pod_entered, "sh", "-c", "echo on; sleep 600 &")
    assert (code, out) == (0, b"on\n")


async def test_containers_are_told_apart_and_a_missing_one_is_said(pod_entered: Connection) -> None:
    async with opened(pod_entered, execution("pwd", container="b")) as stream:
        assert await read_all(stream.read) == b"/\n"
    with pytest.raises(HostError, match="container c is not running"):
        await pod_entered.open(execution("true", container="c"), name="it", timeout=30)


async def test_a_containers_restart_ends_its_commands_and_the_next_run_can_be_entered(job: Callable[..., Job]) -> None:
    script = "echo ready; trap 'exit 1' USR1; while :; do sleep 0.05; done"
    what = running(job, shell("a", script, restart_policy="Always"))
    async with entered(what) as connection:
        async with opened(connection, execution("sh", "-c", "kill -USR1 $0; sleep 600", _main(what))) as stream:
            assert await asyncio.wait_for(stream.wait(), 20) in (137, 143)
        await asyncio.to_thread(
            what.wait_until, lambda j: j.container("a").restart_count == 1 and "ready" in "".join(j.log("a", 1))
        )
        assert (await outcome(connection, "echo", "again"))[1] == b"again\n"


def _main(job: Job) -> str:
    """The PID of the container's own process: the runner's child in a session of its own."""
    runner = job.processes[0].pid
    return str(
        next(process.pid for process in processes() if process.parent == runner and process.session == process.pid)
    )


async def test_the_end_of_the_pod_ends_the_helper(job: Callable[..., Job]) -> None:
    what = running(job, shell("a", FOREVER))
    async with entered(what) as connection:
        async with opened(connection, execution("sh", "-c", "echo on; exec sleep 600")) as stream:
            await until(stream.read, b"on")  # or there is nothing to enter any more
            what.processes[0].send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(stream.wait(), 20) in (137, 143)
        async with asyncio.timeout(20):
            while connection.lost is None:  # noqa: ASYNC110 - it is for the next caller to see
                await asyncio.sleep(0.05)


async def test_a_port_is_connected_both_ways_with_half_close(pod_entered: Connection) -> None:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    server = await asyncio.start_server(upper, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        opened(pod_entered, {"op": "connect", "port": port}) as stream,
    ):
        await stream.write(b"a" * 300_000)
        await stream.close_stdin()
        assert await read_all(stream.read) == b"A" * 300_000


async def test_a_refused_port_is_said_for_both_addresses(pod_entered: Connection) -> None:
    with pytest.raises(HostError, match=r"localhost:9 of the pod, IPv4: .*, IPv6: .*"):
        await pod_entered.open({"op": "connect", "port": 9}, name="it", timeout=30)


async def test_a_connection_that_nobody_waits_for_any_more_leaves_the_others_alone(pod_entered: Connection) -> None:
    with socket.socket() as deaf, socket.socket() as queued:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        queued.connect(deaf.getsockname())  # the only one that the system takes before an accept
        waiting = asyncio.create_task(
            pod_entered.open({"op": "connect", "port": deaf.getsockname()[1]}, name="it", timeout=30)
        )
        await asyncio.sleep(0.3)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait({waiting})
    assert await outcome(pod_entered, "echo", "on") == (0, b"on\n", b"")


def attachment(*, stdin: bool = True) -> dict[str, object]:
    return {"op": "attach", "container": "a", "stdin": stdin}


READER = "echo ready; while read line; do echo got $line; done; echo over"


async def test_all_attached_see_the_output_and_the_log_keeps_it(job: Callable[..., Job]) -> None:
    what = running(job, shell("a", READER, stdin=True))
    async with (
        entered(what) as connection,
        opened(connection, attachment()) as one,
        opened(connection, attachment()) as two,
    ):
        await one.write(b"x\n")
        await asyncio.gather(until(one.read, b"got x\n"), until(two.read, b"got x\n"))
        await two.write(b"y\n")
        await asyncio.gather(until(one.read, b"got y\n"), until(two.read, b"got y\n"))
    assert [line.rsplit(" ", 1)[1] for line in what.log("a")] == ["ready", "x", "y"]
    assert what.processes[0].poll() is None


async def test_stdin_once_ends_with_the_first_who_leaves(job: Callable[..., Job]) -> None:
    what = running(job, shell("a", READER, stdin=True, stdin_once=True))
    async with (
        entered(what) as connection,
        opened(connection, attachment()) as one,
        opened(connection, attachment(stdin=False)) as two,
    ):
        await one.write(b"x\n")
        await one.close_stdin()
        assert await read_all(one.read) == b"got x\nover\n"
        assert await one.wait() == 0
        assert await read_all(two.read) == b"got x\nover\n"


async def test_input_stays_open_for_the_next_without_stdin_once(job: Callable[..., Job]) -> None:
    async with entered(running(job, shell("a", READER, stdin=True))) as connection:
        for word in (b"x", b"y"):
            async with opened(connection, attachment()) as stream:
                await stream.write(word + b"\n")
                await until(stream.read, b"got " + word)
                await stream.close_stdin()
                assert await read_all(stream.read) == b""  # it only came to write
                assert await stream.wait() == 0


async def test_attached_to_a_terminal_one_can_type_and_resize(job: Callable[..., Job]) -> None:
    what = running(job, shell("a", "echo ready; exec sh", stdin=True, tty=True))
    async with entered(what) as connection, opened(connection, attachment()) as stream:
        await stream.resize(90, 40)
        await stream.write(b"stty size; exit 5\n")
        assert b"40 90" in await read_all(stream.read)
        assert await stream.wait() == 5


async def test_a_container_that_closes_its_terminal_lives_on_and_may_come_back_to_it(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    back = (
        f"until test -e {tmp_path}/over; do sleep 0.1; done; read line < /dev/tty; echo back $line > /dev/tty; exit 4"
    )
    what = running(
        job, shell("a", f"echo ready; exec <&- >&- 2>&-; touch {tmp_path}/left; {back}", stdin=True, tty=True)
    )
    what.wait_until(lambda _: (tmp_path / "left").exists(), seconds=20)
    async with entered(what) as connection, opened(connection, attachment()) as stream:
        (tmp_path / "over").touch()
        await stream.write(b"again\n")
        assert b"back again" in await read_all(stream.read)
        assert await stream.wait() == 4
    assert what.log("a")[-1].rstrip() == "stdout F back again"


async def test_who_reads_too_slowly_is_detached_and_the_container_goes_on(job: Callable[..., Job]) -> None:
    script = "echo ready; read line; head -c 20000000 /dev/zero | tr '\\0' x; echo; echo over; exec sleep 600"
    what = running(job, shell("a", script, stdin=True))
    async with entered(what) as connection, opened(connection, attachment()) as stream:
        await stream.write(b"go\n")
        await asyncio.to_thread(what.wait_until, lambda j: j.log("a")[-1].endswith("over"), seconds=60)
        with pytest.raises(HostError, match="faster than it was read"):
            await read_all(stream.read)


async def test_a_runner_out_of_descriptors_takes_no_cpu_for_who_waits_and_lets_them_in_later(
    job: Callable[..., Job],
) -> None:
    what = running(job, shell("a", FOREVER))
    runner = what.processes[-1].pid
    used = {int(name) for name in os.listdir(f"/proc/{runner}/fd")}
    before = resource.prlimit(runner, resource.RLIMIT_NOFILE)
    resource.prlimit(runner, resource.RLIMIT_NOFILE, (min({*range(len(used) + 1)} - used), before[1]))

    async def visit() -> tuple[int, bytes, bytes]:
        async with entered(what) as connection:
            return await outcome(connection, "echo", "in")

    visitor = asyncio.create_task(visit())
    await asyncio.sleep(1)
    begun = cpu_seconds(runner)
    await asyncio.sleep(1)
    assert cpu_seconds(runner) - begun < 0.3
    assert not visitor.done()
    resource.prlimit(runner, resource.RLIMIT_NOFILE, before)
    assert await visitor == (0, b"in\n", b"")


async def test_as_many_come_in_as_the_runner_has_descriptors_for(job: Callable[..., Job], tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128 + 3 * 8, before[1]))
    try:
        what = running(job, shell("a", FOREVER))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    script = f"echo in >> {tmp_path}/in; until test -e {tmp_path}/go; do sleep 0.05; done"
    async with entered(what) as connection:
        visits = [asyncio.create_task(outcome(connection, "sh", "-c", script)) for _ in range(3)]
        await asyncio.to_thread(what.wait_until, lambda _: (tmp_path / "in").read_text() == "in\n" * 2)
        await asyncio.sleep(1.5)
        assert (tmp_path / "in").read_text() == "in\n" * 2
        (tmp_path / "go").touch()
        assert [code for code, _out, _errors in await asyncio.gather(*visits)] == [0, 0, 0]


def add(job: Job, name: str, script: str) -> None:
    """Stage a container as the provider does."""
    directory = Path(job.directory.ephemeral_container(name))
    directory.mkdir(parents=True)
    container = shell(name, script, kind=plan.EPHEMERAL)
    env = [plan.EnvEntry("ODD", "odd", expand=False, node_field="")]
    (directory / "container.json").write_text(json.dumps(plan.to_json(container)))
    (directory / "env.json").write_text(json.dumps([plan.to_json(entry) for entry in env]))


async def test_a_container_added_to_the_running_pod_runs_once_and_does_not_hold_up_the_end(
    job: Callable[..., Job],
) -> None:
    what = running(job, shell("a", FOREVER))
    add(what, "quick", "echo $ODD; exit 3")
    add(what, "slow", "echo ready; exec sleep 600")
    async with entered(what) as connection:
        for _ in range(2):
            await connection.call({"op": "admit"}, timeout=30)
        await asyncio.to_thread(what.wait_until, lambda j: isinstance(j.container("quick").state, Terminated))
        await asyncio.to_thread(what.wait_until, lambda j: "ready" in "".join(j.log("slow")))
    assert what.container("quick").state.exit_code == 3
    assert what.container("quick").restart_count == 0
    assert what.log("quick") == ["stdout F odd"]
    what.processes[0].send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(what.processes[0].wait, 30) == 143
