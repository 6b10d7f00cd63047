"""Every string of a pod is hostile until it has arrived: arguments and environments, through a real sbatch, unchanged."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .pods import Pods, manifest
from .waiting import wait_until

pytestmark = pytest.mark.e2e

# What is written into job directories is the same whichever way it goes there; that any text goes both ways is shown once.
over_ssh = pytest.mark.parametrize("agent", ["ssh"], indirect=True, scope="session")

# What the API server takes in a string, and a process can hold: no NUL, no lone surrogates.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
# A shell's favourites, whole and as pieces.
NASTY = [
    "$(touch /tmp/owned)", "`id`", "${HOME}", "$HOME", "'", '"', "\\", "\n", "\r\n", "a\nb", "*", "~", "!", "#SBATCH --x", "%j", "%%",
    "'; id; '", '"; id; "', "\\'", "a b", " ", "\t", "--help", "-", "=", "é", "日本語", "\U0001f600", "\x1b[31m", "\x7f", "a\\nb", "$(", "$)", "$$",
]  # fmt: skip
PIECES = st.lists(st.sampled_from(NASTY) | TEXTS, max_size=5).map("".join)
NAMES = [f"V{number}" for number in range(12)]

ECHO = (
    "import base64,json,os,sys;"
    "print(base64.b64encode(json.dumps([sys.argv[1:],"
    "{k:v for k,v in os.environ.items() if k[0]=='V' and k[1:].isdigit()}]).encode()).decode())"
)


def received(pods: Pods, name: str) -> list[Any]:
    """What the program in the container got: its arguments and its variables."""
    pods.wait_phase(name, "Succeeded", seconds=120)
    answer: list[Any] = json.loads(base64.b64decode(pods.kubectl("logs", name)))
    return answer


def escaped(text: str) -> str:
    """The text as a manifest must say it: Kubernetes itself makes `$` of `$$` in arguments and values."""
    return text.replace("$", "$$")


def echo_pod(pods: Pods, name: str, arguments: list[str], variables: dict[str, str]) -> dict[str, Any]:
    """A pod that tells what it got."""
    pod = manifest(name, pods.agent)
    pod["spec"]["containers"][0] |= {
        "image": "python:3.11-slim",
        "command": ["python3", "-c", escaped(ECHO)],
        "args": [escaped(argument) for argument in arguments],
        "env": [{"name": key, "value": escaped(value)} for key, value in variables.items()],
    }
    return pod


def drawn() -> list[tuple[list[str], dict[str, str]]]:
    """Some random arguments and variables each, all before the first pod: their pods run at once."""
    found = []

    @settings(
        max_examples=6, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(st.lists(PIECES, min_size=20, max_size=40), st.lists(PIECES, min_size=len(NAMES), max_size=len(NAMES)))
    def draw(arguments: list[str], values: list[str]) -> None:
        found.append((arguments + NASTY, dict(zip(NAMES, values, strict=True))))

    draw()
    return found


def test_hostile_arguments_and_variables_arrive_unchanged(pods: Pods) -> None:
    sent = {f"hostile-{number}": strings for number, strings in enumerate(drawn())}
    pods.apply(*(echo_pod(pods, name, *strings) for name, strings in sent.items()))
    for name, (arguments, variables) in sent.items():
        got_arguments, got_variables = received(pods, name)
        assert got_arguments == arguments
        changed = {name: (value, got_variables.get(name)) for name, value in variables.items()}
        assert not {name: pair for name, pair in changed.items() if pair[0] != pair[1]}


@contextmanager
def command_lines_with(*words: bytes) -> Iterator[set[bytes]]:
    """Which of the words stand in any process's command line, looked at again and again until the block's end."""
    seen: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes()
                except (FileNotFoundError, ProcessLookupError):
                    continue  # it has ended meanwhile
                seen.update(word for word in words if word in line)

    looking = threading.Thread(target=look, name="command lines")
    looking.start()
    try:
        yield seen
    finally:
        over.set()
        looking.join()


def test_hostile_variables_arrive_in_probes_hooks_and_exec_and_no_process_list_shows_them(pods: Pods) -> None:
    secret, argument = "onlyinvalues7f3a", "inanargument9c1e"
    variables = {f"V{number}": secret + text for number, text in enumerate(NASTY)}

    def noting(place: str) -> list[str]:
        return ["sh", "-c", f"cat /proc/self/environ > /shared/{place}"]

    places = ("poststart", "probe", "exec", "prestop")
    tell = f"for p in {' '.join(places)}; do echo $p `base64 < /shared/$p | tr -d '\\n'`; done; exit 0"
    script = f'trap "{tell.replace("$", chr(92) + "$").replace("`", chr(92) + "`")}" TERM; while :; do sleep 0.2; done'
    pod = manifest("places", pods.agent, "sh", "-c", script, argument)
    pod["spec"]["containers"][0] |= {
        "env": [{"name": name, "value": escaped(value)} for name, value in variables.items()],
        "readinessProbe": {"exec": {"command": noting("probe")}, "periodSeconds": 1, "timeoutSeconds": 10},
        "lifecycle": {"postStart": {"exec": {"command": noting("poststart")}}, "preStop": {"exec": {"command": noting("prestop")}}},
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
    }  # fmt: skip
    pod["spec"]["volumes"] = [{"name": "shared", "emptyDir": {}}]
    with command_lines_with(secret.encode(), argument.encode()) as seen:
        pods.apply(pod)
        pods.wait("places", "to be ready", lambda s: s["containerStatuses"][0]["ready"], seconds=90)
        pods.kubectl("exec", "places", "--", *noting("exec"))
        wait_until("what stands in an argument to be seen", lambda: argument.encode() in seen)
        pods.kubectl("patch", "pod", "places", '--patch={"spec":{"activeDeadlineSeconds":1}}')
        pods.wait_phase("places", "Failed", seconds=90)
    assert seen == {argument.encode()}
    told = dict(line.split() for line in pods.kubectl("logs", "places").splitlines())
    assert tuple(told) == places
    for place, data in told.items():
        entries = base64.b64decode(data).decode().rstrip("\0").split("\0")
        got = dict(entry.split("=", 1) for entry in entries)
        assert {name: got.get(name) for name in variables} == variables, place


@over_ssh
def test_an_argument_of_a_hundred_kilobytes_arrives(pods: Pods) -> None:
    long = "x'\"$" * 25_000
    pods.apply(echo_pod(pods, "long", [long], {}))
    assert received(pods, "long") == [[long], {}]


@over_ssh
def test_configmap_and_secret_values_arrive_as_they_are_bytes_that_are_no_text_too(pods: Pods) -> None:
    value = "$(PATH) $$ $(touch /x) `id` \\ ' \" \n end"
    binary = b"\xff\xfe k\xc3\xa9y \x80"
    pods.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "raw"}, "data": {"v": value}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "raw"}, "data": {"V2": base64.b64encode(binary).decode()}},
    )  # fmt: skip
    pod = echo_pod(pods, "raw", [], {})
    pod["spec"]["containers"][0]["env"] = [
        {"name": "V1", "valueFrom": {"configMapKeyRef": {"name": "raw", "key": "v"}}}
    ]
    pod["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": "raw"}}]
    pods.apply(pod)
    assert received(pods, "raw") == [[], {"V1": value, "V2": binary.decode(errors="surrogateescape")}]


@over_ssh
def test_a_hostile_path_is_mounted_and_worked_in_as_it_is(pods: Pods) -> None:
    # Apptainer can't mount a path with a control character, and the container's state says so.
    path = "/mnt/" + "|".join(piece for piece in NASTY if piece.isprintable())
    pod = echo_pod(pods, "paths", [], {})
    container = pod["spec"]["containers"][0]
    told = "import base64,json,os; print(base64.b64encode(json.dumps([os.getcwd(), os.path.ismount('.')]).encode()).decode())"
    container |= {"command": ["python3", "-c", told], "workingDir": path}
    container["volumeMounts"] = [{"name": "v", "mountPath": path}]
    pod["spec"]["volumes"] = [{"name": "v", "emptyDir": {}}]
    pods.apply(pod)
    assert received(pods, "paths") == [path, True]


@over_ssh
def test_a_nul_is_refused_by_its_path_if_the_api_server_takes_it(pods: Pods) -> None:
    pod = manifest("nul", pods.agent, "true", args=["a\0"])
    made = pods.testbed.run(
        "kubectl", f"--namespace={pods.namespace}", "create", "--filename=-", stdin=json.dumps(pod), check=False
    )
    if made.returncode == 0:
        assert "spec.containers[0].args[0]" in pods.wait_phase("nul", "Failed")["message"]
        assert pods.jobs("nul") == []
    else:
        assert pods.get("nul") is None


@over_ssh
@pytest.mark.parametrize(
    ("annotation", "value"),
    [("partition", "cpu --uid=0"), ("account", 'a"\n#SBATCH --uid=0'), ("reservation", "-x"), ("constraint", "a b")],
)
def test_hostile_annotations_are_refused_by_their_path(pods: Pods, annotation: str, value: str) -> None:
    name = f"annotated-{annotation}"
    pod = manifest(name, pods.agent, "true")
    pod["metadata"]["annotations"][f"slurmlet.io/{annotation}"] = value
    pods.apply(pod)
    status = pods.wait_phase(name, "Failed")
    assert f"metadata.annotations[slurmlet.io/{annotation}]" in status["message"]
    assert pods.jobs(name) == []
