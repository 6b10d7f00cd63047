"""exec, cp, attach, run -it, debug -it, port-forward with the real kubectl over both of its transports.

Three agents: over SSH with a ServiceAccount; on the login node with the node's identity; over SSH with the node's
identity, and without WebSockets declared, so that the API server does what it did before 1.36. Marks give the lines of
the kubelet contract's checklist; other clients are in ``test_streaming_clients``.
"""

import contextlib
import hashlib
import json
import secrets
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .agents import Agent, running
from .pods import make_pods, placed
from .streams import FILES, LARGE, MIB, SECONDS, TRANSPORTS, Place, Terminal, process, rss, steady
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

# Longer than kubectl waits for an answer to its pings.
STUCK_SECONDS = 75


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def older(testbed: Testbed) -> Iterator[Agent]:
    """An agent with which an API server speaks as one before 1.36 does."""
    settings = {"api": {"websockets": False}}
    for agent in running(Agent(testbed, "ssh", index=19, identity="node", settings=settings)):
        yield agent
    testbed.kubectl("delete", "node", agent.node, "--ignore-not-found")


# How kubectl speaks to an agent and how that one reaches into a pod do not meet in between: what shows the whole of one
# way does so over SSH, to an agent that is spoken to as today.
once = pytest.mark.parametrize("place", ["ssh_agent"], indirect=True, scope="module")


@pytest.fixture(scope="module", params=["ssh_agent", "local_agent", "older"])
def place(testbed: Testbed, request: pytest.FixtureRequest) -> Iterator[Place]:
    with contextlib.contextmanager(make_pods)(testbed, request.getfixturevalue(request.param)) as pods:
        made = Place(testbed, pods.agent, pods.namespace)
        made.start()
        yield made
        made.end()


@pytest.fixture(scope="module")
def stuck(place: Place) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    """Clients whose command does not read for a long time what they send it; then it ends with 9.

    An API server that translates WebSockets itself leaves kubectl's pings unanswered: that one would give up.
    """
    transports = [transport for transport in TRANSPORTS if place.websockets or transport == "spdy"]
    words = place.argv("exec", "-i", "main", "--", "sh", "-c", f"sleep {STUCK_SECONDS}; exit 9")
    before = sum(place.streams("exec").values())
    with Path("/dev/zero").open("rb") as zeros, contextlib.ExitStack() as stack:
        clients = {
            transport: stack.enter_context(process(words, place.environment(transport), stdin=zeros))
            for transport in transports
        }
        wait_until("the clients", lambda: sum(place.streams("exec").values()) - before == len(clients), seconds=SECONDS)
        yield clients


@pytest.mark.checklist(46)
def test_a_command_has_its_outputs_its_exit_code_and_an_end_of_its_input(place: Place, transport: str) -> None:
    before, spoken = place.streams("exec"), place.spoken("exec", transport)
    done = place.over(transport, "exec", "main", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, b"out\n")
    assert done.stderr.startswith(b"err\n")
    done = place.over(transport, "exec", "-i", "main", "--", "wc", "-c", stdin=b"12345")
    assert (done.returncode, done.stdout.strip()) == (0, b"5")
    done = place.over(transport, "exec", "main", "--", "/no/such/program")
    assert done.returncode != 0
    assert b"/no/such/program" in done.stderr
    after = place.streams("exec")
    assert {which for which in after if after[which] != before.get(which)} == {spoken}
    assert after[spoken] - before.get(spoken, 0) == 3


@once
@pytest.mark.checklist(46)
@pytest.mark.usefixtures("stuck")
def test_a_command_may_be_a_long_script(place: Place, transport: str) -> None:
    script = f"echo {'x' * 100_000}; exit 3"
    done = place.over(transport, "exec", "main", "--", "sh", "-c", script)
    assert (done.returncode, len(done.stdout)) == (3, 100_001), done.stderr


@pytest.mark.checklist(46)
def test_a_hundred_megabytes_go_in_and_out_unchanged(place: Place, transport: str, large: bytes) -> None:
    data = large if place.websockets else large[: 5 * MIB]
    done = place.over(transport, "exec", "-i", "main", "--", "cat", stdin=data)
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(done.stdout).hexdigest() == hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def large() -> bytes:
    return secrets.token_bytes(LARGE)


# No backslash: kubectl takes it for a slash.
NAMES = ["plain", " a space", "-dash", "quotes'\"", "ümlaut ☃", "$(id)", "new\nline", "x" * 200]


def tree_of(root: Path) -> dict[str, bytes | None]:
    """The files below a directory and what is in them, None for a directory; without symbolic links."""
    found = (path for path in root.rglob("*") if not path.is_symlink())
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in found}


@once
@pytest.mark.checklist(49)
def test_a_tree_is_copied_both_ways(place: Place, transport: str, tmp_path: Path) -> None:
    tree, back, inside = tmp_path / "there", tmp_path / "back", f"/tmp/{transport}"
    (tree / "empty directory").mkdir(parents=True)
    (tree / "deep" / "down").mkdir(parents=True)
    (tree / "deep" / "down" / "large").write_bytes(secrets.token_bytes(MIB))
    for number, name in enumerate(NAMES):
        (tree / name).write_bytes(b"%d" % number * number)
    (tree / "link").symlink_to("deep/down/large")
    (tree / "dangling").symlink_to("/nowhere")
    there = place.over(transport, "cp", str(tree), f"main:{inside}")
    assert there.returncode == 0, there.stderr
    look = f"readlink {inside}/link; readlink {inside}/dangling; cat {inside}/link"
    said = place.over(transport, "exec", "main", "--", "sh", "-c", look)
    assert said.stdout == b"deep/down/large\n/nowhere\n" + (tree / "link").read_bytes()
    done = place.over(transport, "cp", f"main:{inside}", str(back))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"skipping symlink") == 2, "as kubectl does, lest they lead out of the directory"
    assert tree_of(back) == tree_of(tree)


@pytest.mark.checklist(46)
def test_a_terminal_has_the_size_of_the_users_and_follows_it(place: Place, transport: str) -> None:
    terminal = Terminal(place, transport, "exec", "-it", "main", "--", "sh")
    terminal.wait_shown(b"24 80", ask="stty size\n")
    terminal.resize(99, 33)
    terminal.wait_shown(b"33 99", ask="stty size\n")
    terminal.type("exit 3\n")
    assert terminal.end() == 3


@once
@pytest.mark.checklist(48)
def test_run_it_rm_is_a_session_that_leaves_nothing(place: Place, transport: str) -> None:
    name = f"session-{transport}"
    overrides = {"apiVersion": "v1", "spec": placed(place.agent)}
    words = ("run", name, "-it", "--rm", "--restart=Never", "--image=busybox:1.36", "--pod-running-timeout=2m")
    terminal = Terminal(place, transport, *words, f"--overrides={json.dumps(overrides)}", "--", "sh")
    terminal.wait_shown(b"answer 42", ask="echo answer $((6*7))\n")
    terminal.type("exit\n")
    assert terminal.end() == 0
    place.wait_gone(name)


@pytest.mark.checklist(48)
def test_a_client_attached_to_a_pod_gives_it_its_input(place: Place, transport: str) -> None:
    reader = f"reader-{transport}"
    attached = place.over(transport, "attach", "-i", reader, stdin=b"one\ntwo\n")
    assert b"got one\ngot two\n" in attached.stdout
    place.wait_phase(reader, "Failed")
    assert place.terminated(reader)["exitCode"] == 5
    assert place.spoken("exec", transport) in place.streams("attach")


@once
@pytest.mark.checklist(51)
def test_debug_it_is_a_session_in_a_new_container_that_others_can_attach_to(place: Place, transport: str) -> None:
    name = f"look-{transport}"
    first = Terminal(
        place, transport, "debug", "-it", "main", "--image=busybox:1.36", f"--container={name}", "--", "sh"
    )
    first.wait_shown(b"answer 42", ask="echo answer $((6*7))\n")
    second = Terminal(place, transport, "attach", "-it", "main", f"--container={name}")
    second.wait_shown(b"answer 56", ask="echo answer $((7*8))\n")
    first.wait_shown(b"answer 56")
    second.type("exit 4\n")
    for terminal in (first, second):
        terminal.end()

    def ended() -> dict[str, Any] | None:
        (status,) = [each for each in place.status("main")["ephemeralContainerStatuses"] if each["name"] == name]
        return status["state"].get("terminated")  # type: ignore[no-any-return]

    assert (wait_until("the container's end to be told", ended) or {})["exitCode"] == 4


def download(port: int, name: object) -> str:
    """The SHA-256 of what is served."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}", timeout=SECONDS) as answer:
        return hashlib.sha256(answer.read()).hexdigest()


def small(number: int) -> str:
    text = "".join(f"{line}\n" for line in range(number, 4001))
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.checklist(50)
def test_many_connections_are_forwarded_at_once(place: Place, transport: str) -> None:
    with place.forwarded(transport, place.files) as (port, said), ThreadPoolExecutor(FILES) as executor:
        numbers = range(FILES)
        assert list(executor.map(download, [port] * FILES, numbers)) == [small(n) for n in numbers], said()
    assert place.spoken("portForward", transport) in place.streams("portForward")


def echoed(port: int, data: bytes) -> str:
    """The SHA-256 of what comes back when all of it is sent, and then the end of it."""
    got = hashlib.sha256()
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection, ThreadPoolExecutor(1) as executor:

        def send() -> None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        sending = executor.submit(send)
        while received := connection.recv(MIB):
            got.update(received)
        sending.result()
    return got.hexdigest()


@pytest.mark.checklist(50)
def test_a_hundred_megabytes_are_forwarded_there_and_back_unchanged(place: Place, transport: str, large: bytes) -> None:
    data = large if place.websockets else large[: 5 * MIB]
    with place.forwarded(transport, place.echo) as (port, said):
        assert echoed(port, data) == hashlib.sha256(data).hexdigest(), said()


@once
@pytest.mark.checklist(50)
def test_a_port_where_nobody_listens_leaves_a_clear_error(place: Place, transport: str) -> None:
    with place.forwarded(transport, 1) as (port, said):
        with pytest.raises(OSError):
            download(port, 0)
        wait_until("an error", lambda: "error forwarding port 1 to pod" in said(), seconds=SECONDS)
        assert "refused" in said()


@pytest.mark.parametrize("place", ["ssh_agent", "local_agent"], indirect=True, scope="module")
@pytest.mark.checklist(46)
def test_twenty_commands_run_at_once_while_clients_are_stuck_and_memory_stays_bounded(
    place: Place, transport: str
) -> None:
    place.over(transport, "exec", "main", "--", "true")
    before = rss(place.agent.pid)
    output = place.argv("exec", "main", "--", "dd", "if=/dev/zero", "bs=1M", "count=100")
    with (
        process(output, place.environment(transport), stdout=subprocess.PIPE) as deaf,
        ThreadPoolExecutor(20) as executor,
    ):
        assert deaf.stdout is not None
        assert deaf.stdout.read(1) == b"\0"  # and not one more

        def one(number: int) -> bool:
            done = place.over(transport, "exec", "main", "--", "sh", "-c", f"echo {number}; exit {number}")
            return (done.returncode, done.stdout) == (number, b"%d\n" % number)

        assert all(executor.map(one, range(20)))
        wait_until("memory to settle", lambda: steady(place.agent.pid), seconds=SECONDS, every=1)
        assert rss(place.agent.pid) - before < 64 * MIB


@pytest.mark.checklist(12)
def test_the_node_declares_what_it_serves_and_nothing_else(place: Place) -> None:
    node = place.testbed.get("node", place.agent.node)
    assert node is not None
    expected = ["ExtendWebSocketsToKubelet"] if place.websockets else []
    assert node["status"].get("declaredFeatures", []) == expected


@once
@pytest.mark.checklist(46)
def test_a_client_whose_command_does_not_read_is_not_given_up(
    stuck: dict[str, "subprocess.Popen[bytes]"],
) -> None:
    deadline = time.monotonic() + STUCK_SECONDS + 30
    assert {name: each.wait(deadline - time.monotonic()) for name, each in stuck.items()} == dict.fromkeys(stuck, 9)
