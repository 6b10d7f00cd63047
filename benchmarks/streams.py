"""Bytes to and from a pod: exec beside srun, throughput, how soon a followed log shows a line, what followers cost."""

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

from testbed.site import users
from tests.e2e.testbed import Testbed
from tests.e2e.waiting import wait_until

from .report import Measure, Result, quantile
from .setting import Setting, setting
from .sight import started

INDEX = 14
_PARTITION = "cpu"
_POD_SECONDS = 120
_LINGER_SECONDS = 6
_MIB = 1024 * 1024
_EXEC_AIM, _THROUGHPUT_AIM, _LATENCY_AIM = 1.2, 100.0, 0.2
_LINES = "while :; do cut -d' ' -f1 /proc/uptime; sleep 0.25; done"
_SERVER = (
    "mkdir /tmp/www; dd if=/dev/zero of=/tmp/www/large bs=1M count={mib}; httpd -f -p 127.0.0.1:{port} -h /tmp/www"
)


async def measure(testbed: Testbed, host: str, *, count: int, mib: int, followers: int) -> Result:
    """Run all of it, with one pod that writes lines and is entered. ``count``: commands, and lines looked at."""
    async with setting(testbed, host, index=INDEX) as place:
        port = _unused_port()
        script = f"{_SERVER.format(mib=mib, port=port)} & {_LINES}"
        await place.create([place.pod("streams", _PARTITION, "sh", "-c", script)])
        await place.sight.wait(["streams"], started, seconds=_POD_SECONDS)
        await _kubectl(place, "exec", "streams", "--", "true")
        measures = [
            *await _commands(place, count),
            *await _throughput(place, mib, port),
            await _log_latency(place, count),
            await _followers(place, followers),
        ]
    title = f"A pod's streams, by kubectl and the API server; plain: srun --overlap; {count} commands, {mib} MiB"
    return Result("streams", host, title, tuple(measures))


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _commands(place: Setting, count: int) -> list[Measure]:
    (job,) = await asyncio.to_thread(_jobs, place)
    ours, plain, asking = [], [], []
    for _ in range(count):
        ours.append(await _timed(_kubectl(place, "exec", "streams", "--", "true")))
        plain.append(await _timed(_srun(place, job, "true")))
        asking.append(await _timed(_kubectl(place, "get", "--raw", "/healthz")))
    own = quantile([whole - least for whole, least in zip(ours, asking, strict=True)], 0.5)
    return [
        _compared("exec of true, p50", quantile(ours, 0.5), quantile(plain, 0.5)),
        Measure("exec of true, p99", quantile(ours, 0.99), "s", quantile(plain, 0.99)),
        Measure("kubectl and the API server alone (get --raw /healthz), p50", quantile(asking, 0.5), "s"),
        _compared("exec of true without these, p50", own, quantile(plain, 0.5)),
    ]


def _compared(name: str, ours: float, plain: float) -> Measure:
    return Measure(name, ours, "s", plain, f"≤ {_EXEC_AIM} times plain", ours <= _EXEC_AIM * plain)


def _jobs(place: Setting) -> list[str]:
    lines = place.as_root("squeue", "--noheader", "--format=%i %j").splitlines()
    return [line.split()[0] for line in lines if line.split()[1].startswith(f"{place.namespace}/")]


async def _srun(place: Setting, job: str, *command: str, stdin: Path | None = None) -> None:
    become = ("setpriv", f"--reuid={users.ALICE.name}", f"--regid={users.ALICE.name}", "--init-groups")
    srun = ("srun", "--overlap", f"--jobid={job}", "-N1", "-n1", "--gres=none", "--chdir=/", *command)
    await _run(place, *place.agent.inside(*become, *srun), stdin=stdin)


async def _timed(work: Awaitable[object]) -> float:
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun


async def _throughput(place: Setting, mib: int, port: int) -> list[Measure]:
    (job,) = await asyncio.to_thread(_jobs, place)
    write = ("dd", "if=/dev/zero", "bs=1M", f"count={mib}", "status=none")
    read = ("sh", "-c", "cat >/dev/null")
    zeros = Path("/dev/shm") / place.namespace  # noqa: S108  memory, and its own name
    zeros.write_bytes(bytes(mib * _MIB))
    try:
        seconds = {
            "exec, out of the pod": await _timed(_kubectl(place, "exec", "streams", "--", *write)),
            "exec, into the pod": await _timed(_kubectl(place, "exec", "-i", "streams", "--", *read, stdin=zeros)),
        }
        plain = {
            "exec, out of the pod": await _timed(_srun(place, job, *write)),
            "exec, into the pod": await _timed(_srun(place, job, *read, stdin=zeros)),
        }
    finally:
        zeros.unlink()
    async with _forwarded(place, port) as local:
        seconds["port-forward, out of the pod"] = await _timed(_download(local, mib * _MIB))
    size, aim = mib * _MIB / 1e6, f"≥ {_THROUGHPUT_AIM:.0f} MB/s"
    return [
        Measure(
            name,
            size / took,
            "MB/s",
            size / plain[name] if name in plain else None,
            aim,
            size / took >= _THROUGHPUT_AIM,
        )
        for name, took in seconds.items()
    ]


@asynccontextmanager
async def _forwarded(place: Setting, port: int) -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(
        "kubectl", f"--namespace={place.namespace}", "port-forward", "pod/streams", f":{port}",
        env=place.testbed.environment, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.search(rb"127\.0\.0\.1:(\d+)", await process.stdout.readline())
        assert found is not None
        yield int(found.group(1))
    finally:
        process.kill()
        await process.wait()


async def _download(port: int, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /large HTTP/1.0\r\n\r\n")
    left = size
    while data := await reader.read(_MIB):
        left -= len(data)
    assert left <= 0, f"{left} bytes are missing"
    writer.close()


async def _log_latency(place: Setting, count: int) -> Measure:
    process = await asyncio.create_subprocess_exec(
        "kubectl", f"--namespace={place.namespace}", "logs", "-f", "--tail=1", "streams",
        env=place.testbed.environment, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    late = []
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        for _ in range(count):
            written = float(await process.stdout.readline())
            late.append(time.clock_gettime(time.CLOCK_BOOTTIME) - written)
    finally:
        process.kill()
        await process.wait()
    value = quantile(late, 0.5)
    return Measure("logs -f, line written → shown, p50", value, "s", None, f"≤ {_LATENCY_AIM} s", value <= _LATENCY_AIM)


async def _followers(place: Setting, count: int) -> Measure:
    """Follow one log many times, by requests to the API server, and see by how much the agent has grown."""
    await asyncio.sleep(_LINGER_SECONDS)  # until the connections of before are closed
    before, sockets = _rss(place.agent.pid), _sockets(place.agent.pid)
    path = f"/api/v1/namespaces/{place.namespace}/pods/streams/log?follow=true&tailLines=1"
    following = [
        await asyncio.create_subprocess_exec(
            "kubectl", "get", "--raw", path, env=place.testbed.environment, stdout=asyncio.subprocess.DEVNULL
        )
        for _ in range(count)
    ]
    try:
        await asyncio.to_thread(
            wait_until, "followers", lambda: _sockets(place.agent.pid) >= sockets + count, seconds=120
        )
        await asyncio.sleep(5)
        grown = _rss(place.agent.pid) - before
    finally:
        for process in following:
            process.kill()
        await asyncio.gather(*(process.wait() for process in following))
    return Measure(f"{count} followers of a log: memory of the agent", grown / _MIB, "MiB")


def _sockets(pid: int) -> int:
    return sum(1 for entry in Path(f"/proc/{pid}/fd").iterdir() if _is_socket(entry))


def _is_socket(entry: Path) -> bool:
    try:
        return str(entry.readlink()).startswith("socket:")
    except OSError:
        return False


def _rss(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


async def _kubectl(place: Setting, *words: str, stdin: Path | None = None) -> None:
    await _run(place, "kubectl", f"--namespace={place.namespace}", *words, stdin=stdin)


async def _run(place: Setting, *argv: str, stdin: Path | None = None) -> None:
    with (stdin or Path("/dev/null")).open("rb") as given:
        process = await asyncio.create_subprocess_exec(
            *argv, env=place.testbed.environment, stdin=given, stdout=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0, argv
