"""The policy can't be escaped: whatever a pod says, its script has no directive that its namespace may not have."""

import shlex
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_plugin import annotations as keys
from slurm_plugin.annotationvalues import features_in, licenses_in
from slurm_plugin.cluster import Cluster, Partition
from slurm_plugin.errors import TranslationError
from slurm_plugin.job import BatchJob
from slurm_plugin.pod import Pod
from slurm_plugin.policy import rule_for
from slurm_plugin.render import render
from slurm_plugin.translate import translate

from .manifests import container, make_node, make_pod, make_site

Json = dict[str, Any]
UID = 1000  # the Slurm user's, and its group's
RULE = {
    "partitions": ["cpu", "gpu"], "accounts": ["physics"], "qos": ["normal"], "reservations": ["course"], "wckeys": ["w"],
    "constraints": ["a100", "cpu"], "licenses": ["matlab"], "max_cpus": 4, "max_memory_mib": 2048, "max_gpus": 1, "max_nodes": 3,
    "max_time_limit_minutes": 60, "max_priority": 10, "priority_classes": {"urgent": {"nice": -5, "qos": "express"}},
    "srun_args": ["cpu-bind", "distribution"], "user": "alice", "service_accounts": ["default", ""],
    "namespaces": ["default", "team-*"],
}  # fmt: skip
ROBOT = RULE | {"user": "robot", "service_accounts": ["robot"]}
ALLOWED = {
    "partition": {"cpu", "gpu"}, "account": {"physics"}, "qos": {"normal", "express"}, "reservation": {"course"}, "wckey": {"w"},
}  # fmt: skip
# Every option that any script of ours may have; an unknown one is a raw flag.
OURS = {
    "nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "mem", "tmp", "gres", "time", "partition", "account", "qos", "reservation",
    "constraint", "licenses", "wckey", "comment", "priority", "nice", "exclusive", "job-name", "chdir", "output", "open-mode", "export",
    "requeue", "no-requeue", "dependency", "signal",
}  # fmt: skip
# What may be a raw flag: an administrator's view of it, not the module's.
RAW = {
    "begin", "contiguous", "cpu-freq", "deadline", "distribution", "exclude", "gres-flags", "hold", "mail-type", "mail-user",
    "mem-bind", "no-kill", "nodelist", "prefer", "batch", "quiet", "switches", "tmp", "verbose", "wait-all-nodes",
}  # fmt: skip
OPTIONS = ["partition", "account", "uid", "gid", "qos", "nodes", "ntasks", "mem", "mem-per-cpu", "cpus-per-task", "gres", "gpus", "time",
           "exclusive", "export", "wrap", "array", "dependency", "job-name", "chdir", "output", "hint", "begin", "nice", "priority",
           "prefer", "batch", "nodefile", "nodelist", "bbf", "reboot", "ntasks-per-tres", "contiguous", "switches"]  # fmt: skip
# Three nodes of the partition "cpu" are small enough to be had whole, alone or together; one of "gpu" is not.
CLUSTER = Cluster(
    "c", "24.11", tuple(Partition(name, name == "cpu", True, None, None) for name in ("cpu", "gpu", "low")),
    (make_node("a", cpus=1, memory_mib=900, partitions=frozenset({"cpu"})), make_node("b", cpus=2, memory_mib=3000, partitions=frozenset({"cpu"})),
     make_node("c", cpus=2, memory_mib=1000, partitions=frozenset({"cpu"}), gres={("gpu", "a100"): 1}),
     make_node("d", cpus=4, memory_mib=4000, partitions=frozenset({"gpu"}), gres={("gpu", "a100"): 2, ("gpu", "h100"): 1})),
)  # fmt: skip
WISHES = (
    "cpu", "gpu", "low", "root", "physics", "normal", "express", "1", "2", "3", "4", "5", "0", "-1", "61", "99", "1-0", "ALL", "true",
    "a100", "h100|a100", "a100&cpu", "matlab:1", "ansys", "gpu:1", "gpu:2", "gpu:a100:2", "shard:1", "mps", "2049", "600", "2G", "afterok:a",
    "pmix", "none", "main", "second", "course", "w", "--cpu-bind=cores", "--jobid=1", "--output=x --cpu-bind=none", "/etc/passwd",
)  # fmt: skip
VALUES = st.sampled_from(WISHES)
WORDS = st.one_of(
    VALUES,
    st.builds("--{}={}".format, st.sampled_from(OPTIONS), VALUES),
    st.builds("--{}".format, st.sampled_from([*OPTIONS, *(option[:-1] for option in OPTIONS)])),
    st.builds("-{}{}".format, st.sampled_from("pAqCLtcJnNGdDMaHkIOsQvWwxFbm"), st.one_of(st.just(""), VALUES)),
    st.sampled_from(
        [
            "--hold",
            "--prefer=a100",
            "--batch=cpu",
            "-wn1",
            "--begin=now",
            "-Hv",
            "--exclude=/etc/passwd",
            "--mem-bind=local",
        ]
    ),
    st.text(alphabet="-=HIkOsqpANct1 \"'\\#%x", max_size=12),
)
FLAGS = st.lists(WORDS, min_size=1, max_size=3).map(lambda words: " ".join(shlex.quote(word) for word in words))


def reads(kind: keys._Kind, value: str) -> bool:
    """Whether an annotation takes a value at all; those that it takes are what the policy has to decide about."""
    try:
        kind.read(value)
    except ValueError:
        return False
    return True


# What of a script is no directive is the same for every pod.
BODY = [
    line[:4] for line in render(translate(make_pod(), make_site()).job).splitlines() if not line.startswith("#SBATCH ")
]
# Every key there is, so that a new one is tried from its first day on.
KINDS = {
    key: kind for name, kind in keys._KINDS.items() for key in (keys.OURS + name, kind.alias) if key
}  # fmt: skip
TAKEN = {key: [value for value in WISHES if reads(kind, value)] for key, kind in KINDS.items()}


@st.composite
def annotations(draw: st.DrawFn) -> dict[str, str]:
    """Some annotations, mostly with values that they take."""
    result = {}
    for key in draw(st.lists(st.sampled_from(sorted(KINDS)), max_size=4, unique=True)):
        flags = key.endswith("/flags")
        result[key] = draw(
            st.one_of(
                FLAGS if flags else st.sampled_from(TAKEN[key]),
                *([] if draw(st.integers(0, 9)) else [VALUES, FLAGS, st.text(max_size=10)]),
            )
        )
    return result


AMOUNTS = st.fixed_dictionaries(
    {},
    optional={
        "cpu": st.sampled_from(["500m", "1", "2", "5"]),
        "memory": st.sampled_from(["1", "100Mi", "1Gi", "3Gi"]),
        "ephemeral-storage": st.just("1Mi"),
        "nvidia.com/gpu": st.sampled_from(["0", "1", "2"]),
        "amd.com/gpu": st.sampled_from(["0", "0", "1"]),
        "nvidia.com/mig-1g.5gb": st.sampled_from(["0", "0", "1"]),
        "hugepages-2Mi": st.sampled_from([*"00000", "2Mi"]),
        "slurmlet.io/partition": st.sampled_from("000001"),
        "example.org/gpu\n#SBATCH --partition=low": st.sampled_from("000001"),
    },
)
IDENTITIES = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from([UID, UID, UID, UID, 0, 4242]) for name in ("runAsUser", "runAsGroup")}
)
# Texts of a pod that reach a script or a plan, or might.
HOSTILE = st.sampled_from(["low", "x --partition=low", "x\n#SBATCH --partition=low", "$(id)", '"; id #', "a,b", "%j"])
LABELS = st.sampled_from(
    [f"slurmlet.io/{label}" for label in ("partition-low", "partition-gpu", "feature-h100", "feature-a100", "gpu-type-h100")]
)  # fmt: skip
EXPRESSIONS = st.builds(
    lambda key, operator: {"key": key, "operator": operator, "values": ["true"] if operator in {"In", "NotIn"} else []},
    LABELS, st.sampled_from(["Exists", "Exists", "In", "In", "NotIn", "DoesNotExist"]),
)  # fmt: skip


@st.composite
def pods(draw: st.DrawFn) -> Pod:
    """A pod with any of the fields that steer its job."""

    def some(strategy: st.SearchStrategy[Any]) -> Any:
        return draw(strategy) if draw(st.integers(0, 3)) == 0 else None

    def body(name: str, **fields: Any) -> Json:
        asked = some(AMOUNTS) or {}
        fields |= {"securityContext": some(IDENTITIES) or {}, "workingDir": some(HOSTILE) or ""}
        return container(name, resources={draw(st.sampled_from(["limits", "requests"])): asked}, **fields)

    terms = draw(st.lists(st.lists(EXPRESSIONS, max_size=2), max_size=2)) if draw(st.integers(0, 3)) == 0 else []
    required = {"nodeSelectorTerms": [{"matchExpressions": expressions} for expressions in terms]}
    spec: Json = {
        "initContainers": [body(f"i{n}", **({"restartPolicy": "Always"} if sidecar else {})) for n, sidecar in enumerate(draw(st.lists(st.booleans(), max_size=2)))],
        "overhead": some(AMOUNTS),
        "resources": some(st.builds(lambda amounts: {"limits": amounts}, AMOUNTS)),
        "activeDeadlineSeconds": some(st.sampled_from([1, 60, 3600, 10**6])),
        "nodeSelector": some(st.dictionaries(LABELS, st.just("true"), max_size=1)),
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}} if terms else None,
        "serviceAccountName": some(st.sampled_from(["default", "robot"])),
        "priorityClassName": some(st.sampled_from(["urgent", "other", "express", "root"])),
        "priority": some(st.sampled_from([0, 10**9])),
        "securityContext": some(st.builds(lambda a, b: a | b, IDENTITIES, st.sampled_from([{}, {}, {"fsGroup": 0}, {"fsGroup": 0}, {"supplementalGroups": [0]}]))),
        "hostname": some(HOSTILE),
        "schedulerName": some(HOSTILE),
        "nodeName": some(HOSTILE),
        "hostNetwork": some(st.booleans()),
        "terminationGracePeriodSeconds": some(st.sampled_from([0, 30, 10**6])),
    }  # fmt: skip
    names = ["main", "second"][: draw(st.integers(1, 2))]
    return make_pod(
        *(body(name) for name in names),
        annotations=draw(annotations()),
        metadata={
            "namespace": draw(st.sampled_from([*["default"] * 8, "team-a", "stranger"])),
            "labels": some(st.builds(lambda v: {"slurmlet.io/partition": v}, HOSTILE)) or {},
        },
        **{field: value for field, value in spec.items() if value is not None},
    )


def directives(script: str) -> list[tuple[str, str]]:
    """The options that sbatch reads, raw flags among them, by getopt's rules for the long ones."""
    words = [word for line in script.splitlines() if line.startswith("#SBATCH ") for word in shlex.split(line[8:])]
    return [(word.partition("=")[0].removeprefix("--"), word.partition("=")[2]) for word in words]


def check_identity(pod: Pod, user: str | None) -> None:
    """Who the pod is was decided by its namespace and service account alone, and it names nobody else."""
    robot = pod.spec.service_account_name == "robot"
    assert user == ("robot" if robot else "alice")
    assert robot or pod.metadata.namespace in {"default", "team-a"}
    said = pod.model_dump(by_alias=True)["spec"]
    for context in (
        said["securityContext"],
        *(each["securityContext"] for each in said["containers"] + said["initContainers"]),
    ):
        assert {(context or {}).get("runAsUser")} <= {None, UID}
        assert {(context or {}).get("runAsGroup")} <= {None, UID}


def check_sizes(final: dict[str, str], cluster: Cluster | None) -> None:
    """What the whole job takes, on all its nodes."""
    nodes, tasks = int(final["nodes"]), int(final["ntasks"])
    per_node = int(final.get("ntasks-per-node", tasks))
    assert nodes <= 3
    assert tasks * int(final["cpus-per-task"]) <= 4
    assert per_node * nodes >= tasks
    assert nodes * int(final["mem"][:-1]) <= 2048  # none would be whole nodes'
    assert final["mem"] != "0M"
    gpus = [part for part in final.get("gres", "").split(",") if part.startswith(("gpu", "mps", "shard"))]
    assert all(part.startswith("gpu") for part in gpus)
    assert nodes * sum(int(part.rsplit(":", 1)[-1]) for part in gpus) <= 1
    if "exclusive" in final:
        assert cluster is not None
        whole = [node for node in cluster.nodes if final["partition"] in node.partitions]
        assert sum(sorted(node.cpus for node in whole)[-nodes:]) <= 4
        assert sum(sorted(sum(node.gres.values()) for node in whole)[-nodes:]) <= 1


def check_raw(job: BatchJob) -> None:
    """Raw flags are of those that an administrator would let everybody have, and of the features of the rule."""
    for word in job.extra_arguments:
        name, _, value = word.removeprefix("--").partition("=")
        if word.startswith("--"):
            assert name in RAW
        elif word.startswith("-"):
            assert word[1:].lstrip("HkQv")[:1] in {"", "b", "m"}
        if name in {"prefer", "batch"}:
            assert features_in(value) <= {"a100", "cpu"}
        assert name not in {"nodelist", "exclude"} or "/" not in value


@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@given(pods(), st.sampled_from([None, CLUSTER]), st.booleans())
def test_no_pod_yields_a_directive_that_the_policy_forbids(pod: Pod, cluster: Cluster | None, raw: bool) -> None:
    site = replace(make_site(policy=[each | {"raw_flags": raw} for each in (RULE, ROBOT)]), cluster=cluster, gid=UID)
    try:
        translation = translate(pod, site, {"a": "7"})
        job, script = translation.job, render(translation.job)
    except TranslationError:
        return
    found = directives(script)
    # Behind the directives stands what is the same for every pod.
    assert [line[:4] for line in script.splitlines() if not line.startswith("#SBATCH ")] == BODY
    # What stands last counts for sbatch; ours all stand behind the raw flags.
    final = dict(found)
    for option, allowed in ALLOWED.items():
        assert final.get(option, next(iter(allowed))) in allowed
        assert all(value in allowed for name, value in found if name == option)
    check_sizes(final, cluster)
    check_raw(job)
    assert int(final["time"]) <= 60
    assert features_in(final.get("constraint", "")) <= {"a100", "cpu"}
    assert licenses_in(final["licenses"]) <= {"matlab"} if "licenses" in final else True
    assert int(final.get("priority", "1")) <= 10
    urgent = pod.spec.priority_class_name == "urgent" and "slurmlet.io/nice" not in pod.metadata.annotations
    assert int(final.get("nice", "0")) >= (-5 if urgent else 0)
    assert "requeue" not in final
    assert final["dependency"] in {"singleton", "afterok:7,singleton"}
    assert (final["export"], final["job-name"], final["chdir"]) == ("NONE", job.name, job.directory)
    check_identity(pod, rule_for(site.settings.policy, pod).user)
    for each in translation.plan.containers:
        arguments = each.ranks.arguments if each.ranks is not None else ()
        assert all(word.partition("=")[0] in {"--cpu-bind", "--distribution"} for word in arguments)
    if not raw:
        assert {name for name, _ in found} <= OURS
        assert job.extra_arguments == ()
