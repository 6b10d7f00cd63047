"""What the node and its pods use: sums, rates, and what is not believed."""

from typing import Any

from slurm_plugin.contract import ContainerUsage, PodUsage, ProbeUsage
from slurm_plugin.job import PodUid
from vkubelet.podcache import PodCache, cached_pod
from vkubelet.usage import UsageReader

from .fakes import FakeProvider

SECOND = 1_000_000_000
UID = PodUid("u")


def pod(name: str = "p", uid: str = UID, version: int = 1) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "uid": uid, "resourceVersion": str(version)},
        "spec": {"containers": [{"name": "main", "image": "busybox"}], "initContainers": [{"name": "init"}]},
        "status": {"phase": "Running", "startTime": "1970-01-01T00:01:00Z"},
    }


class Setting:
    """A reader whose clock and provider a test holds."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.cache = PodCache()
        self.cache.put(cached_pod(pod()))
        self.provider = FakeProvider(clock=lambda: self.now)
        self.reader = UsageReader(self.provider, self.cache, clock=lambda: self.now)

    def use(self, cpu_seconds: float, *, at: float, name: str = "main", started_at: float = 100.0) -> None:
        container = ContainerUsage(name, started_at, int(cpu_seconds * SECOND), 1 << 20)
        probes = (ProbeUsage("main", "Liveness", "failed", 3), ProbeUsage("forged", "Liveness", "failed", 1))
        self.provider.usages = (PodUsage(UID, at, (container,), probes),)


async def test_names_come_from_the_pod_and_numbers_from_the_site() -> None:
    setting = Setting()
    setting.use(2, at=200.0)
    (sample,) = (await setting.reader.read()).pods
    assert (sample.namespace, sample.name, sample.started_at) == ("default", "p", 60.0)
    (container,) = sample.containers
    assert (container.name, container.image, container.cpu_nanoseconds) == ("main", "busybox", 2 * SECOND)
    assert [probe.container for probe in sample.probes] == ["main"]
    setting.use(2, at=200.0, name="forged")
    assert (await setting.reader.read()).pods == ()
    setting.cache.remove(UID)
    setting.use(2, at=200.0)
    assert (await setting.reader.read()).pods == ()


async def test_a_rate_is_between_two_measurements_and_stays_until_the_next() -> None:
    setting = Setting()
    setting.use(50, at=200.0)
    assert (await setting.reader.read()).pods[0].nanocores == SECOND // 2  # since its start
    setting.use(70, at=210.0)
    assert (await setting.reader.read()).pods[0].nanocores == 2 * SECOND
    assert (await setting.reader.read()).pods[0].nanocores == 2 * SECOND


async def test_the_nodes_cpu_never_falls_and_is_never_nothing() -> None:
    setting = Setting()
    first = await setting.reader.read()
    assert first.cpu_nanoseconds > 0
    assert first.working_set_bytes > 0
    setting.use(50, at=200.0)
    second = await setting.reader.read()
    assert second.cpu_nanoseconds >= first.cpu_nanoseconds + 50 * SECOND
    setting.use(5, at=220.0, started_at=210.0)  # restarted
    third = await setting.reader.read()
    assert third.cpu_nanoseconds >= second.cpu_nanoseconds + 5 * SECOND
    setting.use(1, at=230.0, started_at=210.0)  # which no runner says
    setting.provider.usages = ()
    assert (await setting.reader.read()).cpu_nanoseconds >= third.cpu_nanoseconds


async def test_a_pod_that_one_look_does_not_find_is_not_counted_twice_by_the_next() -> None:
    setting = Setting()
    setting.use(50, at=200.0)
    before = await setting.reader.read()
    setting.provider.usages = ()
    await setting.reader.read()
    setting.use(60, at=220.0)
    after = await setting.reader.read()
    assert after.cpu_nanoseconds - before.cpu_nanoseconds < 20 * SECOND
    assert after.pods[0].nanocores == SECOND // 2


async def test_what_is_kept_is_of_pods_that_exist() -> None:
    setting = Setting()
    setting.use(50, at=200.0)
    await setting.reader.read()
    assert ("u", "main") in setting.reader._last
    setting.cache.remove(UID)
    await setting.reader.read()
    assert not setting.reader._facts
    assert set(setting.reader._last) == {("", "kubelet")}
