"""``kubectl logs`` with each of its options, of containers that were prepared, restarted, added or never started.

With both identities that an agent may have: over SSH with a ServiceAccount, on the login node as its node. What the port
itself answers, rotation and followers that go away are in ``test_kubelet_api``.
"""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from .agents import Agent
from .pods import Manifest, Pods, make_pods, manifest
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.checklist(45)]

AGAIN = """test -e /d/again || { echo first; touch /d/again; exit 3; }
echo second
while ! test -e /d/stop; do i=$((i+1)); echo tick $i; sleep 0.5; done
echo end"""
STILL = "echo one; sleep 2; echo two; sleep 0.3; echo three >&2; sleep 0.3; echo four; exec sleep 600"
PREPARED = ["[pod/many/early] prepared"]
STOOD = [f"[pod/many/still] {word}" for word in ("one", "two", "three", "four")]


def prepared(pod: Manifest, script: str) -> Manifest:
    pod["spec"]["initContainers"] = [{"name": "early", "image": "busybox:1.36", "command": ["sh", "-c", script]}]
    return pod


def many(agent: Agent) -> Manifest:
    """``main`` fails once, then writes until it is told to stop; ``still`` has written four lines."""
    pod = prepared(manifest("many", agent, "sh", "-c", AGAIN), "echo prepared")
    main: dict[str, Any] = pod["spec"]["containers"][0]
    pod["metadata"]["labels"] = {"app": "many"}
    pod["spec"]["containers"].append(main | {"name": "still", "command": ["sh", "-c", STILL]})
    pod["spec"] |= {"restartPolicy": "OnFailure", "volumes": [{"name": "d", "emptyDir": {}}]}
    main["volumeMounts"] = [{"name": "d", "mountPath": "/d"}]
    return pod


@pytest.fixture(scope="module")
def places(testbed: Testbed, ssh_agent: Agent, local_agent: Agent) -> Iterator[dict[str, Pods]]:
    """The pods of both agents, by the agent's host; started together, for a restart has to be waited for."""
    with contextlib.ExitStack() as stack:
        made = {
            agent.host: stack.enter_context(contextlib.contextmanager(make_pods)(testbed, agent))
            for agent in (ssh_agent, local_agent)
        }
        for place in made.values():
            waiting = prepared(manifest("waiting", place.agent, "true"), "echo at work; sleep 600")
            place.apply(many(place.agent), waiting, manifest("broken", place.agent, "true", image="no/such:image"))
        for place in made.values():
            place.wait("many", "to run again", again)
            wait_until("four lines", lambda place=place: lines(place) == ["one", "two", "three", "four"])  # type: ignore[misc]
        yield made


def again(status: Manifest) -> bool:
    main = next(each for each in status["containerStatuses"] if each["name"] == "main")
    return bool(main["restartCount"] == 1 and "running" in main["state"])


@pytest.fixture(params=["ssh", "local"])
def place(places: dict[str, Pods], request: pytest.FixtureRequest) -> Pods:
    return places[request.param]


def lines(place: Pods, *options: str, container: str = "still") -> list[str]:
    return place.kubectl("logs", "many", f"--container={container}", *options).splitlines()


def moment(line: str) -> datetime:
    return datetime.fromisoformat(line.split()[0])


def test_a_log_is_cut_by_lines_bytes_and_time(place: Pods) -> None:
    assert lines(place, "--tail=0") == []
    assert lines(place, "--tail=2") == ["three", "four"]
    assert lines(place, "--tail=9") == lines(place, "--tail=-1") == lines(place)
    assert lines(place, "--limit-bytes=6") == ["one", "tw"]
    assert lines(place, "--limit-bytes=2", "--tail=1") == ["fo"]
    dated = lines(place, "--timestamps")
    assert [line.split(" ", 1)[1] for line in dated] == lines(place)
    assert all(len(line.split("Z ")[0]) == len("2026-01-01T00:00:00.000000000") for line in dated), "as containerd does"
    assert [moment(line) for line in dated] == sorted(moment(line) for line in dated)
    second = moment(dated[1]).replace(microsecond=0).isoformat()
    assert lines(place, f"--since-time={second}") == ["two", "three", "four"]
    assert lines(place, f"--since-time={second}", "--tail=1", "--timestamps") == dated[-1:]
    assert lines(place, "--since-time=2100-01-01T00:00:00Z") == []
    assert lines(place, "--since=1h") == ["one", "two", "three", "four"]


def test_since_shows_what_is_not_older(place: Pods) -> None:
    wait_until("some ticks", lambda: len(lines(place, container="main")) > 10)
    before = datetime.now(UTC)
    shown = lines(place, "--since=2s", "--timestamps", container="main")
    after = datetime.now(UTC)
    whole = lines(place, "--timestamps", container="main")
    assert moment(shown[0]) >= before - timedelta(seconds=3), "since is whole seconds for the API server"
    assert {line for line in whole if after - timedelta(seconds=2) <= moment(line) < before} <= set(shown)


@pytest.mark.checklist(9)
def test_logs_of_an_init_container_and_of_the_run_before(place: Pods) -> None:
    assert lines(place, container="early") == ["prepared"]
    assert lines(place, "--previous", container="main") == ["first"]
    assert lines(place, "--previous", "--timestamps", "--tail=1", container="main")[0].endswith("Z first")
    assert lines(place, container="main")[:2] == ["second", "tick 1"]


def test_logs_of_all_containers_at_once(place: Pods) -> None:
    shown = place.kubectl("logs", "many", "--all-containers", "--prefix").splitlines()
    of = {
        name: [line for line in shown if line.startswith(f"[pod/many/{name}] ")] for name in ("early", "main", "still")
    }
    assert (of["early"], of["main"][0], of["still"]) == (PREPARED, "[pod/many/main] second", STOOD)
    assert sum(len(each) for each in of.values()) == len(shown)
    shown = place.kubectl("logs", "--selector=app=many", "--all-containers", "--prefix", "--tail=1").splitlines()
    assert {PREPARED[0], STOOD[-1]} < set(shown)
    assert len(shown) == 3


def test_a_container_that_was_added_has_a_log_that_ends_with_it(place: Pods) -> None:
    script = "echo seen; sleep 2; echo again"
    place.kubectl("debug", "many", "--image=busybox:1.36", "--container=look", "--", "sh", "-c", script)
    place.wait("many", "to have it", lambda status: "waiting" not in status["ephemeralContainerStatuses"][0]["state"])
    assert lines(place, "--follow", container="look") == ["seen", "again"]
    assert lines(place, "--tail=1", container="look") == ["again"]


def test_why_there_is_no_log_is_said_in_the_kubelets_words(place: Pods) -> None:
    def refusal(*words: str) -> str:
        done = place.testbed.run("kubectl", f"--namespace={place.namespace}", "logs", *words, check=False)
        assert done.returncode == 1
        return done.stderr.strip()

    bad, main = "Error from server (BadRequest):", 'container "main" in pod'
    assert refusal("many", "--container=still", "--previous") == (
        f'{bad} previous terminated container "still" in pod "many" not found'
    )
    assert refusal("nobody").startswith('error: error from server (NotFound): pods "nobody" not found')
    place.wait("waiting", "to prepare", lambda status: "running" in status["initContainerStatuses"][0]["state"])
    assert refusal("waiting", "--container=main") == f'{bad} {main} "waiting" is waiting to start: PodInitializing'
    assert place.kubectl("logs", "waiting", "--container=early") == "at work\n"
    words = f'{bad} {main} "broken" is waiting to start: trying and failing to pull image'
    wait_until("the image to be given up", lambda: refusal("broken") == words)


def test_a_followed_log_ends_with_its_container_and_not_with_its_pod(place: Pods) -> None:
    assert lines(place, "--follow", "--limit-bytes=9", container="main") == ["second", "ti"]
    assert lines(place, "--follow", "--previous", container="main") == ["first"]
    argv = ("kubectl", f"--namespace={place.namespace}", "exec", "many", "--container=main", "--", "touch", "/d/stop")
    begun = lines(place, container="main")
    place.testbed.run(*argv)
    followed = lines(place, "--follow", "--tail=2", container="main")
    assert followed[-1] == "end"
    assert len(followed) <= 4
    assert lines(place, "--follow", container="main") == lines(place, container="main")
    assert lines(place, container="main")[: len(begun)] == begun
    assert place.status("many")["phase"] == "Running"
