"""Pods and the ``#SBATCH`` lines that each must become: tried on paper by unit tests, on a real slurmctld end to end.

A case's pod has one container named ``main``; ``lines`` are those of its options that the case is about, and no line of
``absent`` may be there. Accounts, partitions, features and GPUs are the testbed's, but for cases ``on_paper``.
"""

from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from slurm_plugin.pod import Pod
from slurm_plugin.render import render
from slurm_plugin.translate import Site, Translation, translate

from .manifests import container, make_pod, make_site

Json = dict[str, Any]
RULE: Json = {
    "accounts": ["physics", "chemistry"], "qos": ["*"], "reservations": ["course"], "requeue": True, "raw_flags": True,
    "priority_classes": {"urgent": {"nice": 5}, "small": {"qos": "small", "nice": 1}},
}  # fmt: skip
GPU = "nvidia.com/gpu"


@dataclass(frozen=True)
class Case:
    """``annotations`` by their names behind ``slurmlet.io/``; ``spec``: more fields; ``site``: sections of its settings."""

    name: str
    lines: tuple[str, ...]
    containers: tuple[Json, ...] = ({},)
    annotations: Json = field(default_factory=dict)
    spec: Json = field(default_factory=dict)
    site: Json = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    jobs: Json = field(default_factory=dict)
    aliases: Json = field(default_factory=dict)
    on_paper: bool = False

    def pod(self, uid: str) -> Pod:
        """The pod, under a UID of its own."""
        named = {f"slurmlet.io/{key}": value for key, value in self.annotations.items()} | self.aliases
        bodies = [container(f"c{index}" if index else "main", **body) for index, body in enumerate(self.containers)]
        return make_pod(*bodies, annotations=named, metadata={"uid": uid, "namespace": "cases"}, **self.spec)

    def translate(self, number: int, site: Site | None = None) -> Translation:
        """What the case is submitted as."""
        settings = {"policy": [RULE]} | self.site
        made = make_site(**settings)
        if site is not None:
            made = replace(site, settings=made.settings)
        return translate(self.pod(str(UUID(int=number))), made, self.jobs)

    def script(self, number: int) -> str:
        """Its script."""
        return render(self.translate(number).job)


def asks(**amounts: str | int) -> Json:
    """A container's requests."""
    return {"resources": {"requests": {name.replace("_", "-"): amount for name, amount in amounts.items()}}}


def limits(amounts: Json, requests: Json | None = None) -> Json:
    """A container's limits, and requests."""
    return {"resources": {"limits": amounts, "requests": requests or {}}}


def at(name: str, value: str, *lines: str, **more: Any) -> Case:
    """A case about one annotation."""
    return Case(f"{name} {value}"[:60], lines, annotations={name: value}, **more)


def flags(text: str, *lines: str, **more: Any) -> Case:
    """A case about interLink's flags."""
    return Case(f"flags {text}"[:60], lines, aliases={"slurm-job.vk.io/flags": text}, **more)


def bridge(name: str, value: str, *lines: str) -> Case:
    """A case about an annotation of slurm-bridge's."""
    return Case(f"slurm-bridge {name}", lines, aliases={f"slurmjob.slinky.slurm.net/{name}": value})


def deadline(seconds: int, minutes: int, grace: int = 30) -> Case:
    """A case about activeDeadlineSeconds."""
    spec = {"activeDeadlineSeconds": seconds, "terminationGracePeriodSeconds": grace}
    return Case(f"deadline {seconds} grace {grace}", (f"--time={minutes}",), spec=spec)


REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def affine(expression: Json) -> Json:
    """A spec with a required node affinity of one expression."""
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}}}


SIDECAR = {"restartPolicy": "Always"}
FEATURE = {"nodeSelector": {"slurmlet.io/feature-cpu": "true"}}

RESOURCES = (
    Case("nothing asked for", ("--nodes=1", "--ntasks=1", "--cpus-per-task=1"), absent=("--mem", "--tmp", "--gres", "--time")),
    Case("one cpu", ("--cpus-per-task=1",), (asks(cpu="1"),)),
    Case("part of a cpu", ("--cpus-per-task=1",), (asks(cpu="100m"),)),
    Case("one cpu and a bit", ("--cpus-per-task=2",), (asks(cpu="1001m"),)),
    Case("two halves of a cpu", ("--cpus-per-task=1",), (asks(cpu="500m"), asks(cpu="500m"))),
    Case("three containers", ("--cpus-per-task=6",), (asks(cpu=1), asks(cpu=2), asks(cpu=3))),
    Case("a limit above its request", ("--cpus-per-task=4",), (limits({"cpu": "4"}, {"cpu": "1"}),)),
    Case("all of a node's cpus", ("--cpus-per-task=16",), (asks(cpu="16"),)),
    Case("memory and overhead", ("--mem=320M",), (asks(memory="64Mi"),)),
    Case("memory in decimal units", ("--mem=352M",), (asks(memory="100M"),)),
    Case("memory rounded up", ("--mem=258M",), (asks(memory=str(2**20 + 1)),)),
    Case("memory of two containers", ("--mem=1280M",), (asks(memory="512Mi"), asks(memory="512Mi"))),
    Case("memory without overhead", ("--mem=64M",), (asks(memory="64Mi"),), site={"pods": {"overhead_memory_mib": 0}}),
    Case("the site's default memory", ("--mem=756M",), site={"pods": {"default_memory_mib": 500}}),
    Case("the site's default cpus", ("--cpus-per-task=3",), site={"pods": {"default_cpus": 3}}),
    Case("the site's minimums", ("--cpus-per-task=2", "--mem=700M", "--time=10"), (asks(cpu="1", memory="64Mi"),), {"time-limit": "5"},
         site={"pods": {"minimum_cpus": 2, "minimum_memory_mib": 700, "minimum_time_limit_minutes": 10}}),
    Case("temporary space", ("--tmp=100M",), (asks(ephemeral_storage="100Mi"),)),
    Case("temporary space rounded up", ("--tmp=96M",), (asks(ephemeral_storage="100M"),)),
    Case("a big init container", ("--cpus-per-task=4",), (asks(cpu=1),), spec={"initContainers": [container("i", **asks(cpu=4))]}),
    Case("init containers one by one", ("--cpus-per-task=3",), (asks(cpu=1),),
         spec={"initContainers": [container("i", **asks(cpu=3)), container("j", **asks(cpu=2))]}),
    Case("a sidecar container", ("--cpus-per-task=3",), (asks(cpu=1),), spec={"initContainers": [container("s", **SIDECAR, **asks(cpu=2))]}),
    Case("a sidecar before an init container", ("--cpus-per-task=6",), (asks(cpu=1),),
         spec={"initContainers": [container("s", **SIDECAR, **asks(cpu=2)), container("i", **asks(cpu=4))]}),
    Case("a sidecar behind an init container", ("--cpus-per-task=4",), (asks(cpu=1),),
         spec={"initContainers": [container("i", **asks(cpu=4)), container("s", **SIDECAR, **asks(cpu=2))]}),
    Case("the pod's overhead", ("--cpus-per-task=2", "--mem=384M"), (asks(cpu=1, memory="64Mi"),),
         spec={"overhead": {"cpu": "500m", "memory": "64Mi"}}),
    Case("resources of the pod", ("--cpus-per-task=8", "--mem=1280M"), (asks(cpu=1),),
         spec={"resources": {"limits": {"cpu": "8", "memory": "1Gi"}}}),
    Case("cpus by annotation", ("--cpus-per-task=5",), (asks(cpu=1),), {"cpus-per-task": "5"}),
    Case("memory by annotation", ("--mem=2048M",), (asks(memory="64Mi"),), {"mem-per-node": "2Gi"}),
)  # fmt: skip
DEVICES = (
    Case("one gpu", ("--gres=gpu:1",), (limits({GPU: "1"}),), {"partition": "gpu"}),
    Case("two gpus", ("--gres=gpu:2",), (limits({GPU: 2}),), {"partition": "gpu"}),
    Case("gpus of two containers", ("--gres=gpu:3",), (limits({GPU: 1}), limits({GPU: 2})), {"partition": "gpu"}),
    Case("a type of gpu", ("--gres=gpu:a100:4",), (limits({GPU: 4}),), {"partition": "gpu", "gpu-type": "a100"}),
    Case("another type", ("--gres=gpu:h100:2",), (limits({GPU: 2}),), {"partition": "gpu", "gpu-type": "h100"}),
    Case("amd's gpus", ("--gres=gpu:1",), (limits({"amd.com/gpu": 1}),), {"partition": "gpu"}),
    Case("a resource with a type", ("--gres=gpu:h100:1",), (limits({"example.org/h100": 1}),), {"partition": "gpu"},
         site={"pods": {"resources": {"example.org/h100": {"gres": "gpu", "type": "h100"}}}}),
    Case("two resources of one gres", ("--gres=gpu:a100:1,gpu:h100:1",), (limits({"example.org/a": 1, "example.org/h": 1}),), {"partition": "gpu"},
         site={"pods": {"resources": {"example.org/a": {"type": "a100"}, "example.org/h": {"type": "h100"}}}}),
    Case("gpus that are none", (), (limits({GPU: 0}),), absent=("--gres",)),
    Case("gres by annotation", ("--gres=gpu:a100:2",), annotations={"gres": "gpu:a100:2", "partition": "gpu"}),
    Case("gres by annotation without a count", ("--gres=gpu:1",), annotations={"gres": "gpu", "partition": "gpu"}),
    Case("a type by selector", ("--gres=gpu:a100:1",), (limits({GPU: 1}),), {"partition": "gpu"},
         spec={"nodeSelector": {"slurmlet.io/gpu-type-a100": "true"}}),
    Case("a product by affinity", ("--gres=gpu:h100:1",), (limits({GPU: 1}),), {"partition": "gpu"},
         spec=affine({"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-H100-80GB-HBM3"]}),
         site={"pods": {"gpu_types": {"NVIDIA-H100-80GB-HBM3": "h100"}}}),
    Case("a slice of a gpu", ("--gres=gpu:1g.5gb:2",), (limits({"nvidia.com/mig-1g.5gb": 2}),), on_paper=True),
    Case("a slice that the site calls by another name", ("--gres=gpu:h100:1",), (limits({"nvidia.com/mig-3g.40gb": 1}),), {"partition": "gpu"},
         site={"pods": {"resources": {"nvidia.com/mig-3g.40gb": {"type": "h100", "devices": "nvidia"}}}}),
    Case("gpus of an init container and of another", ("--gres=gpu:2",), (limits({GPU: 1}),), {"partition": "gpu"},
         spec={"initContainers": [container("i", **limits({GPU: 2}))]}),
    Case("gpus, cpus and memory", ("--gres=gpu:1", "--cpus-per-task=8", "--mem=4352M"),
         (limits({GPU: 1, "cpu": 8, "memory": "4Gi"}),), {"partition": "gpu"}),
)  # fmt: skip
PLACES = (
    Case("the default account", ("--account=physics",)),
    at("account", "chemistry", "--account=chemistry"),
    at("partition", "gpu", "--partition=gpu"),
    at("partition", "low", "--partition=low"),
    at("qos", "normal", "--qos=normal"),
    at("constraint", "cpu", "--constraint=cpu"),
    at("constraint", "a100&nvlink", "--constraint=a100&nvlink", spec={"nodeSelector": {"slurmlet.io/partition-gpu": "true"}}),
    Case("a choice of features", ("--constraint=a100|h100",), annotations={"constraint": "a100|h100", "partition": "gpu"}),
    at("reservation", "course", "--reservation=course"),
    at("licenses", "matlab:2", "--licenses=matlab:2"),
    at("licenses", "matlab:1,ansys:1", "--licenses=matlab:1,ansys:1"),
    at("nice", "100", "--nice=100"),
    at("nice", "0", "--nice=0"),
    at("comment", 'two words "and" \\ more', '--comment=two words "and" \\ more'),
    at("exclusive", "true", "--exclusive"),
    at("exclusive", "false", absent=("--exclusive",)),
    at("requeue", "true", "--requeue", absent=("--no-requeue",)),
    at("requeue", "false", "--no-requeue"),
    at("wckey", "w", "--wckey=w", site={"policy": [{**RULE, "wckeys": ["w"]}]}),
    Case("a priority class", ("--nice=5",), spec={"priorityClassName": "urgent"}),
    Case("a priority class with a qos", ("--nice=1", "--qos=small"), spec={"priorityClassName": "small"}),
    Case("nice above the priority class", ("--nice=9",), annotations={"nice": "9"}, spec={"priorityClassName": "urgent"}),
    Case("a feature by selector", ("--constraint=cpu",), spec=FEATURE),
    Case("features by selector and annotation", ("--constraint=(cpu|a100)&cpu",), annotations={"constraint": "cpu|a100"}, spec=FEATURE),
    Case("a partition by affinity", ("--partition=high",), spec=affine({"key": "slurmlet.io/partition-high", "operator": "Exists"})),
    Case("the node's first partition", ("--partition=low",), site={"slurm": {"host": {"kind": "local"}, "partitions": ["low", "high"]}}),
    Case("the rule's first partition", ("--partition=high",), site={"policy": [{**RULE, "partitions": ["high", "cpu"]}]}),
    Case("no dependency but the twin's", ("--dependency=singleton",)),
    at("dependency", "afterany:a,after:b", "--dependency=afterany:1,singleton", jobs={"a": "1", "b": ""}),
)  # fmt: skip
TIMES = (
    at("time-limit", "5", "--time=5", "--signal=B:USR1@120"),
    at("time-limit", "1:30:00", "--time=90"),
    at("time-limit", "0-12", "--time=720"),
    at("time-limit", "2h", "--time=120"),
    at("time-limit", "1", "--time=1", "--signal=B:USR1@30"),
    deadline(60, 3), deadline(3600, 62), deadline(1, 3), deadline(600, 12, grace=0),
    Case("the annotation above the deadline", ("--time=7",), annotations={"time-limit": "7"}, spec={"activeDeadlineSeconds": 3600}),
    Case("the site's time limit", ("--time=30",), site={"pods": {"default_time_limit_minutes": 30}}),
    Case("the ceiling is the default too", ("--time=20",), site={"policy": [{**RULE, "max_time_limit_minutes": 20}]}),
    Case("the lesser of both", ("--time=20",),
         site={"pods": {"default_time_limit_minutes": 30}, "policy": [{**RULE, "max_time_limit_minutes": 20}]}),
    Case("a long grace period", ("--time=60", "--signal=B:USR1@690"), annotations={"time-limit": "60"},
         spec={"terminationGracePeriodSeconds": 600}),
)  # fmt: skip
FOREIGN = (
    bridge("account", "chemistry", "--account=chemistry"),
    bridge("constraints", "cpu", "--constraint=cpu"),
    bridge("cpu-per-task", "4", "--cpus-per-task=4"),
    bridge("exclusive", "true", "--exclusive"),
    bridge("job-name", "mine", "--comment=mine"),
    bridge("licenses", "ansys:1", "--licenses=ansys:1"),
    bridge("mem-per-node", "500M", "--mem=500M"),
    bridge("partition", "low", "--partition=low"),
    bridge("qos", "normal", "--qos=normal"),
    bridge("timelimit", "15", "--time=15"),
    flags("--partition=low --time=10", "--partition=low", "--time=10"),
    flags("-p low -t 10 -A chemistry -c 2", "--partition=low", "--time=10", "--account=chemistry", "--cpus-per-task=2"),
    flags("--job-name=mine --mem=1G", "--comment=mine", "--mem=1024M"),
    flags("--hint=nomultithread", "--hint=nomultithread", "--dependency=singleton"),
    flags("--begin now+1hour --mail-type=NONE", "--begin", "now+1hour", "--mail-type=NONE"),
    flags("--nice --exclusive", "--nice=100", "--exclusive"),
    Case("ours above a flag", ("--partition=high",), annotations={"partition": "high"}, aliases={"slurm-job.vk.io/flags": "-p low"}),
)  # fmt: skip
RANKS = (
    Case("two nodes", ("--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=1"), annotations={"nodes": "2"}),
    Case("four ranks", ("--nodes=1", "--ntasks=4", "--ntasks-per-node=4"), annotations={"ntasks": "4"}),
    Case("one rank", ("--nodes=1", "--ntasks=1"), annotations={"mpi": "pmix"}, absent=("--ntasks-per-node",)),
    Case("ranks on each node", ("--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--cpus-per-task=2", "--mem=1280M"),
         (limits({"cpu": 2, "memory": "1Gi"}),), {"nodes": "2", "ntasks-per-node": "4"}),
    Case("nodes by ranks", ("--nodes=3", "--ntasks=5", "--ntasks-per-node=2"), annotations={"ntasks": "5", "ntasks-per-node": "2"}),
    Case("ranks that do not divide", ("--nodes=2", "--ntasks=3", "--ntasks-per-node=2"), annotations={"nodes": "2", "ntasks": "3"}),
    Case("ranks and a helper", ("--ntasks=4", "--cpus-per-task=3", "--mem=768M"),
         (asks(cpu=2, memory="256Mi"), asks(cpu=3, memory="256Mi")), {"ntasks": "4"}),
    Case("ranks by cpus-per-task and a helper", ("--ntasks=4", "--cpus-per-task=4"), (asks(cpu=1), asks(cpu=4)),
         {"ntasks": "4", "cpus-per-task": "3"}),
    Case("gpus on each of two nodes", ("--nodes=2", "--gres=gpu:2"), (limits({GPU: 2}),), {"nodes": "2", "partition": "gpu"}),
    Case("a gpu for each rank", ("--ntasks-per-node=2", "--gres=gpu:2"), (limits({GPU: 2}),),
         {"nodes": "2", "ntasks-per-node": "2", "gpus-per-task": "1", "partition": "gpu"}),
    Case("two whole nodes", ("--nodes=2", "--exclusive"), annotations={"nodes": "2", "exclusive": "true"}),
    Case("slurm-bridge's nodes", ("--nodes=2", "--ntasks=2"),
         aliases={f"slurmjob.slinky.slurm.net/{name}-nodes": "2" for name in ("min", "max")}),
)  # fmt: skip
CASES = (*RESOURCES, *DEVICES, *PLACES, *TIMES, *FOREIGN, *RANKS)
