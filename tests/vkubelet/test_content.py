"""The reading of what a pod refers to."""

import asyncio

import pytest

from slurm_plugin.pod import Pod
from tests.slurm_plugin.fakes import run_at_once
from tests.vkubelet.kube import FakeKube
from vkubelet.content import Content
from vkubelet.errors import UnavailableError


def test_services_that_can_not_be_listed_hold_no_worker_for_ever() -> None:
    pod = Pod.model_validate(
        {"metadata": {"name": "p", "namespace": "default", "uid": "u"}, "spec": {"containers": []}}
    )

    async def resolve() -> None:
        with pytest.raises(UnavailableError, match="Services"):
            await Content(FakeKube(), dict).resolve(pod, seen_at=0.0)  # type: ignore[arg-type]

    run_at_once(resolve())


@pytest.mark.parametrize(
    ("api_server", "host", "port"),
    [
        (None, "10.96.0.1", "443"),
        ("api.example.org:6443", "api.example.org", "6443"),
        ("[2001:db8::1]:6443", "2001:db8::1", "6443"),
    ],
)
def test_pods_reach_the_api_server_where_the_site_says(api_server: str | None, host: str, port: str) -> None:
    spec = {"containers": [{"name": "main", "image": "i"}], "enableServiceLinks": False}
    pod = Pod.model_validate({"metadata": {"name": "p", "namespace": "default", "uid": "u"}, "spec": spec})
    ports = [{"name": "https", "port": 443}]
    service = {"metadata": {"namespace": "default"}, "spec": {"clusterIP": "10.96.0.1", "ports": ports}}

    async def resolve() -> dict[str, str]:
        kube = FakeKube()
        kube.put("/api/v1/namespaces/default/services/kubernetes", service)
        content = Content(kube, dict, api_server=api_server)  # type: ignore[arg-type]
        watch = asyncio.create_task(content.watch_services())
        resolved = await content.resolve(pod, seen_at=0.0)
        watch.cancel()
        return {entry.name: entry.value for entry in resolved.env["main"]}

    found = run_at_once(resolve())
    assert (found["KUBERNETES_SERVICE_HOST"], found["KUBERNETES_SERVICE_PORT"]) == (host, port)
    assert found["KUBERNETES_SERVICE_PORT_HTTPS"] == port
