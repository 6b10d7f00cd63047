"""The kubelet's port as its clients use it: metrics-server and what builds on it, logs, certificates, who may what.

One agent of its own, with the node's identity; its pods are started together, for most of them need their time.
"""

import contextlib
import json
import os
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from testbed.kubernetes.metrics_server import NAME as METRICS_SERVER
from testbed.paths import Layout

from .agents import Agent
from .certificates import self_signed_client, serving_authority
from .pods import Pods, make_pods, manifest, placed
from .testbed import Testbed, run_testbed
from .waiting import wait_until

pytestmark = pytest.mark.e2e

# A fifth of a CPU or so: it shows in every measure, and leaves the machine to the other tests.
COMPUTES = "while true; do i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; sleep 0.1; done"
TALKER = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.2; done"


@pytest.fixture(scope="module")
def served(testbed: Testbed) -> Iterator[Agent]:
    """An agent that starts with a serving certificate which is about to expire."""
    agent = Agent(testbed, "ssh", index=15, identity="node", settings={"pods": {"container_log_max_mib": 1}})
    kept = agent.directory / "certificates" / f"{agent.node}-serving.pem"
    kept.parent.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    # It is to be renewed after three quarters of its life, which is in half a minute.
    since, until = now - timedelta(seconds=270), now + timedelta(seconds=130)
    serial = serving_authority().write(kept, agent.node, "127.0.0.1", since=since, until=until)
    agent.log.unlink(missing_ok=True)
    agent.start()
    agent.wait_ready()
    wait_until("the certificate that is there", lambda: shows(serial, agent.port), seconds=25)
    yield agent
    agent.kill(signal.SIGTERM)
    testbed.kubectl("delete", "node", agent.node, "--ignore-not-found")


@pytest.fixture(scope="module")
def pods(testbed: Testbed, served: Agent) -> Iterator[Pods]:
    """The module's pods, all started at once: ``busy`` and ``web`` compute, ``talker`` talks."""
    run_testbed("up", "--only", METRICS_SERVER, quiet=False)
    for pods in make_pods(testbed, served):
        template = manifest("unused", served, "sh", "-c", COMPUTES)["spec"] | placed(served)
        template["restartPolicy"] = "Always"
        template["containers"][0]["resources"] = {"requests": {"cpu": "100m", "memory": "64Mi"}}
        web = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": template},
            },
        }
        busy = manifest("busy", served, "sh", "-c", f"sleep 600 & {COMPUTES}")
        busy["spec"]["containers"].append(busy["spec"]["containers"][0] | {"name": "idle", "command": ["sleep", "600"]})
        busy["spec"]["containers"][1]["readinessProbe"] = {"exec": {"command": ["true"]}, "periodSeconds": 1}
        pods.apply(web, busy, manifest("talker", served, "sh", "-c", TALKER))
        pods.kubectl("autoscale", "deployment", "web", "--min=1", "--max=2", "--cpu=50%")
        yield pods
        end(pods)


def end(pods: Pods) -> None:
    """End the jobs while their agent lives: those that compute would take a CPU each from the tests that follow."""
    pods.kubectl("delete", "deployments,pods", "--all", "--grace-period=1", "--timeout=60s")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """An address of this machine that is not loopback's and yet nobody else's: the API server's proxy dials no 127.0.0.1."""
    base = Layout.from_environment().port_base
    made = f"198.51.100.{base // 100 % 250 + 1}"  # of TEST-NET-2, RFC 5737
    change = ("ip", "address", "{}", f"{made}/32", "dev", "lo")
    subprocess.run([word.format("replace") for word in change], check=True)
    yield made
    subprocess.run([word.format("del") for word in change], check=True)


@pytest.fixture(scope="module")
def filed(testbed: Testbed, address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, Path]]:
    """An agent with a ServiceAccount, at that address, and the file that its serving certificate comes from."""
    file, now = tmp_path_factory.mktemp("certificates") / "serving.pem", datetime.now(UTC)
    files = {"certificate_file": str(file), "key_file": str(file)}
    settings = {"api": {"certificate": files, "listen": address}, "node": {"address": address}}
    agent = Agent(testbed, "ssh", index=16, settings=settings)
    serving_authority().write(file, agent.node, address, since=now, until=now + timedelta(hours=1))
    agent.start()
    agent.wait_ready()
    yield agent, file
    agent.kill(signal.SIGTERM)
    testbed.kubectl("delete", "node", agent.node, "--ignore-not-found")


@pytest.fixture(scope="module")
def here(testbed: Testbed, filed: tuple[Agent, Path]) -> Iterator[Pods]:
    """A pod ``here`` of the agent with a ServiceAccount."""
    with contextlib.contextmanager(make_pods)(testbed, filed[0]) as pods:
        pods.run("here", "sh", "-c", COMPUTES)
        pods.wait_phase("here", "Running")
        yield pods
        end(pods)


# --- certificates -----------------------------------------------------------------------------------------------------


def shown(port: int, address: str = "127.0.0.1") -> x509.Certificate | None:
    """The certificate that a port shows, None while it is not open."""
    with contextlib.suppress(OSError):
        return x509.load_pem_x509_certificate(ssl.get_server_certificate((address, port)).encode())
    return None


def shows(serial: int, port: int, address: str = "127.0.0.1") -> bool:
    certificate = shown(port, address)
    return certificate is not None and certificate.serial_number == serial


def test_certificate_files_are_read_again_when_they_change(filed: tuple[Agent, Path], address: str) -> None:
    agent, file = filed
    first = shown(agent.port, address)
    assert first is not None
    now = datetime.now(UTC)
    second = serving_authority().write(file, agent.node, address, since=now, until=now + timedelta(hours=2))
    assert second != first.serial_number
    wait_until("the second certificate", lambda: shows(second, agent.port, address), seconds=60)
    assert proxied(agent, "healthz") == "ok"


def proxied(agent: Agent, path: str) -> str:
    """What the API server's proxy to the node answers; it verifies the certificate."""
    return agent.testbed.kubectl("get", "--raw", f"/api/v1/nodes/{agent.node}/proxy/{path}")


# --- who may what -----------------------------------------------------------------------------------------------------


def answer(
    agent: Agent, path: str, token: str = "", *, method: str = "GET", certificate: Path | None = None
) -> tuple[int, str]:
    """Status and body of a request to the port itself."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate)
    request = urllib.request.Request(f"https://127.0.0.1:{agent.port}{path}", method=method)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=60, context=context) as response:  # noqa: S310
            return int(response.status), response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


SUBRESOURCES = {
    "/metrics": "metrics", "/metrics/resource": "metrics", "/stats/summary": "stats", "/pods": "pods",
    "/runningpods/": "pods", "/healthz": "healthz", "/configz": "configz", "/logs/": "log",
    "/containerLogs/default/no/c": "proxy", "/checkpoint/default/no/c": "checkpoint",
}  # fmt: skip


@pytest.fixture(scope="module")
def tokens(testbed: Testbed, served: Agent) -> Iterator[dict[str, str]]:
    """For each subresource a token that may only ``get`` that one of our node."""
    objects: list[dict[str, Any]] = []
    group = "rbac.authorization.k8s.io"
    for name in sorted(set(SUBRESOURCES.values())):
        rules = [
            {"apiGroups": [""], "resources": [f"nodes/{name}"], "resourceNames": [served.node], "verbs": ["get"]}
        ]  # fmt: skip
        subject = {"kind": "ServiceAccount", "namespace": "default", "name": f"only-{name}"}
        reference = {"apiGroup": group, "kind": "ClusterRole", "name": f"only-{name}"}
        objects += [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": f"only-{name}", "namespace": "default"}},
            {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": f"only-{name}"}, "rules": rules},
            {"apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": f"only-{name}"},
             "roleRef": reference, "subjects": [subject]},
        ]  # fmt: skip
    testbed.apply(*objects)
    yield {
        name: testbed.kubectl("create", "token", f"only-{name}").strip() for name in set(SUBRESOURCES.values())
    }  # fmt: skip
    listing = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    testbed.kubectl("delete", "--filename=-", "--ignore-not-found", stdin=listing)


@pytest.mark.checklist(11)
def test_each_path_needs_its_own_subresource_and_no_other_opens_it(
    served: Agent, pods: Pods, tokens: dict[str, str]
) -> None:
    wait_until("the rights to be known", lambda: answer(served, "/healthz", tokens["healthz"])[0] == 200, seconds=60)
    broad = {"pods", "healthz", "configz"}  # which `proxy` opens too, as before Kubernetes 1.33
    for path, needed in SUBRESOURCES.items():
        status = {name: answer(served, path, token)[0] for name, token in tokens.items()}
        allowed = {name for name, code in status.items() if code != 403}
        assert allowed == {needed} | ({"proxy"} if needed in broad else set()), path
    # `get` on nodes/proxy must not mean to run commands.
    for path in ("/exec/default/no/c", "/run/default/no/c", "/attach/default/no/c", "/portForward/default/no"):
        assert answer(served, path, tokens["proxy"])[0] == 403


def test_a_certificate_of_an_unknown_ca_is_nobody_and_disturbs_nobody(
    served: Agent, tokens: dict[str, str], tmp_path: Path
) -> None:
    certificate = self_signed_client(tmp_path / "client.pem", "system:masters")
    with pytest.raises((ssl.SSLError, OSError)):
        answer(served, "/healthz", tokens["healthz"], certificate=certificate)
    assert answer(served, "/healthz", tokens["healthz"])[0] == 200


# --- what the node shows ----------------------------------------------------------------------------------------------


@pytest.mark.checklist(53)
def test_the_api_servers_proxy_reaches_what_a_kubelet_shows(here: Pods) -> None:
    agent = here.agent
    for path in ("pods", "runningpods/"):
        wait_until(f"it in {path}", lambda path=path: '"name":"here"' in proxied(agent, path).replace(": ", ":"))  # type: ignore[misc]
    assert proxied(agent, "healthz") == "ok"
    assert json.loads(proxied(agent, "configz"))["kubeletconfig"]["port"] == agent.port
    assert json.loads(proxied(agent, "stats/summary"))["node"]["nodeName"] == agent.node
    own = proxied(agent, "metrics")
    assert f'slurmlet_pods{{node="{agent.node}",phase="Running"}}' in own
    assert 'slurmlet_submissions_total{outcome="accepted"} 1.0' in own
    assert 'slurmlet_slurm_command_duration_seconds_count{command="sbatch",outcome="ok"} 1.0' in own
    assert 'slurmlet_api_requests_total{code="200",resource="pods/status",verb="PATCH"}' in own
    for path in ("metrics/resource", "metrics/cadvisor", "metrics/probes"):
        assert "# TYPE" in proxied(agent, path)
    with pytest.raises(AssertionError, match=r"(?i)not ?found"):
        proxied(agent, "logs/")


def test_usage_is_told_for_each_running_container(served: Agent, pods: Pods, tokens: dict[str, str]) -> None:
    pods.wait_phase("busy", "Running")

    def summary() -> dict[str, Any] | None:
        found = json.loads(answer(served, "/stats/summary", tokens["stats"])[1])["pods"]
        busy = next((pod for pod in found if pod["podRef"]["name"] == "busy"), None)
        return busy if busy is not None and len(busy["containers"]) == 2 else None

    containers = {c["name"]: c for c in wait_until("its usage", summary, seconds=60)["containers"]}
    assert containers["main"]["cpu"]["usageCoreNanoSeconds"] > containers["idle"]["cpu"]["usageCoreNanoSeconds"] > 0
    assert all(container["memory"]["workingSetBytes"] > 0 for container in containers.values())
    for path in ("/metrics/resource", "/metrics/cadvisor"):
        assert 'container_cpu_usage_seconds_total{container="idle"' in answer(served, path, tokens["metrics"])[1]
    wait_until(
        "probes to be counted",
        lambda: 'pod="busy"' in answer(served, "/metrics/probes", tokens["metrics"])[1],
        seconds=90,
    )


def top(testbed: Testbed, *words: str) -> list[list[str]]:
    """The words of each row, none while metrics-server knows nothing of it."""
    done = testbed.run("kubectl", "top", *words, "--no-headers", check=False)
    return [row.split() for row in done.stdout.splitlines()]


@pytest.mark.checklist(52)
def test_kubectl_top_shows_pods_and_node(testbed: Testbed, pods: Pods, here: Pods) -> None:
    pods.wait_phase("busy", "Running")
    for place, name in ((pods, "busy"), (here, "here")):
        words = ("pod", name, f"--namespace={place.namespace}", "--containers")
        found = wait_until("pods at the top", lambda words=words: top(testbed, *words), seconds=120)  # type: ignore[misc]
        rows = {row[1]: row for row in found}
        assert set(rows) == ({"main", "idle"} if name == "busy" else {"main"})
        assert int(rows["main"][2].removesuffix("m")) > 50
        words = ("node", place.agent.node)
        (node,) = wait_until("the node at the top", lambda words=words: top(testbed, *words), seconds=60)  # type: ignore[misc]
        assert int(node[1].removesuffix("m")) > 50


@pytest.mark.checklist(52)
def test_an_autoscaler_scales_by_what_pods_use(pods: Pods) -> None:
    def replicas() -> int:
        found = pods.testbed.get("deployment", "web", pods.namespace)
        assert found is not None
        return int(found["spec"]["replicas"])

    wait_until("a second replica", lambda: replicas() == 2, seconds=180, every=1)


# --- logs -------------------------------------------------------------------------------------------------------------


def test_the_port_refuses_logs_in_the_kubelets_words(
    served: Agent, pods: Pods, tokens: dict[str, str], testbed: Testbed
) -> None:
    pods.wait_phase("talker", "Running")
    token, base = tokens["proxy"], f"/containerLogs/{pods.namespace}/talker"
    assert answer(served, f"{base}/nobody", token) == (404, 'container "nobody" not found in pod "talker"\n')
    assert answer(served, f"/containerLogs/{pods.namespace}/gone/main", token) == (404, 'pod "gone" does not exist\n')
    assert answer(served, f"{base}/main?tailLines=-1", token)[0] == 422
    assert answer(served, f"{base}/main?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", token)[0] == 422
    assert answer(served, f"{base}/main?tailLines=x", token)[0] == 400
    assert answer(served, f"{base}/main?limitBytes=6", token) == (200, "line 1")
    assert answer(served, f"{base}/main?sinceSeconds=3600&tailLines=1", token)[1].startswith("line ")
    assert answer(served, f"{base}/main?stream=Stderr", token) == (200, "")
    assert answer(served, f"{base}/main?stream=Stdout&limitBytes=6", token) == (200, "line 1")


@pytest.mark.checklist(45)
def test_a_followed_log_goes_on_across_rotation_and_ends_with_its_container(pods: Pods) -> None:
    # 3 MiB in files of 1 MiB, told slowly enough for one who follows.
    script = "i=0; while [ $i -lt 48 ]; do i=$((i+1)); head -c 65536 /dev/zero | tr '\\0' x | fold -w 1023; echo; sleep 0.3; done; echo end"
    pods.run("rotated", "sh", "-c", script)
    pods.wait_phase("rotated", "Running")
    text = pods.testbed.run("kubectl", f"--namespace={pods.namespace}", "logs", "--follow", "rotated", timeout_seconds=120).stdout  # fmt: skip
    assert text.count("x") == 48 * 65536
    assert text.endswith("end\n")
    pods.wait_phase("rotated", "Succeeded")
    # Who asks later gets the newest file, as from a kubelet: as much as it may hold, and to the end.
    rest = pods.kubectl("logs", "rotated")
    assert text.endswith(rest)
    assert 0 < len(rest) < 1024 * 1024
    assert pods.kubectl("logs", "rotated", "--tail=3").splitlines() == text.splitlines()[-3:]


def readers(log: str) -> int:
    """How many open descriptors read a log file, on this machine (which is every node of the site)."""
    found = 0
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit():
                for entry in (process / "fd").iterdir():
                    if os.readlink(entry).endswith(log):
                        flags = (process / "fdinfo" / entry.name).read_text().split("flags:")[1].split()[0]
                        found += int(flags, 8) & os.O_ACCMODE == os.O_RDONLY
    return found


def test_a_follower_that_goes_away_leaves_no_reader(
    testbed: Testbed, served: Agent, pods: Pods, tokens: dict[str, str]
) -> None:
    pods.wait_phase("talker", "Running")
    pod = pods.get("talker")
    assert pod is not None
    log = f"/{pod['metadata']['uid']}/logs/main/0.log"
    argv = ("kubectl", f"--namespace={pods.namespace}", "logs", "--follow", "talker")
    with subprocess.Popen(argv, env=testbed.environment, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "line 1\n"
        wait_until("a reader", lambda: readers(log) == 1)
        follower.kill()
    wait_until("no reader", lambda: readers(log) == 0)
    wait_until(
        "no stream",
        lambda: 'in_flight{endpoint="containerLogs"} 0.0' in answer(served, "/metrics", tokens["metrics"])[1],
        seconds=30,
    )


@pytest.mark.checklist(9, 10)
def test_a_certificate_is_renewed_before_it_expires_without_a_restart(served: Agent) -> None:
    # Last: it has been so since the agent started, and renewal is due half a minute after that.
    wanted = datetime.now(UTC) + timedelta(hours=1)

    def renewed() -> bool:
        certificate = shown(served.port)
        return certificate is not None and certificate.not_valid_after_utc > wanted

    wait_until("another certificate", renewed, seconds=90)
    assert served.log.read_text().count("kubelet API on") == 1
