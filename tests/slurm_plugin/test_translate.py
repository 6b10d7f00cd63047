from dataclasses import replace
from typing import Any

import pytest

from slurm_plugin.cluster import Cluster, Partition
from slurm_plugin.errors import InvalidAnnotationError, PolicyError, TranslationError
from slurm_plugin.job import BatchJob, Gres
from slurm_plugin.jobdir import Root
from slurm_plugin.runner.plan import plan_from_json, to_json
from slurm_plugin.translate import job_name, translate

from .manifests import DIGEST, UID, container, make_node, make_pod, make_site, requests

Json = dict[str, Any]


def job(spec: Json | None = None, annotations: Json | None = None, **site: Any) -> BatchJob:
    named = {f"slurmlet.io/{name}": value for name, value in (annotations or {}).items()}
    return translate(make_pod(annotations=named, **(spec or {})), make_site(**site)).job


def test_a_job_is_named_after_its_pod_and_lives_in_its_directory() -> None:
    translation = translate(make_pod(), make_site())
    assert translation.job.name == job_name(make_pod()) == f"default/web:{UID}"
    assert translation.job.directory == f"/home/alice/.slurmlet/hpc/pods/{UID}"
    assert translation.job.archive_digest == DIGEST
    assert translation.plan.images == "/home/alice/.slurmlet/hpc/images"
    assert translation.plan.uid == UID


@pytest.mark.parametrize(
    ("annotation", "value", "attribute", "expected"),
    [
        ("partition", "gpu", "partition", "gpu"),
        ("account", "physics", "account", "physics"),
        ("qos", "high", "qos", "high"),
        ("reservation", "course", "reservation", "course"),
        ("constraint", "a100&nvlink", "constraint", "a100&nvlink"),
        ("licenses", "matlab:2", "licenses", "matlab:2"),
        ("nice", "10", "nice", 10),
        ("exclusive", "true", "exclusive", True),
        ("requeue", "true", "requeue", True),
    ],
)
def test_an_annotation_places_the_job(annotation: str, value: str, attribute: str, expected: object) -> None:
    anything = {"partitions": ["*"], "accounts": ["*"], "qos": ["*"], "reservations": ["*"], "requeue": True}
    assert getattr(job(annotations={annotation: value}, policy=[anything]).placement, attribute) == expected


@pytest.mark.parametrize(
    ("spec", "annotations", "pods", "rule", "minutes", "warning"),
    [
        ({}, {}, {}, {}, None, 120),
        ({"terminationGracePeriodSeconds": 0}, {}, {}, {}, None, 90),
        ({"terminationGracePeriodSeconds": 10**6}, {}, {}, {}, None, 65535),
        ({}, {"time-limit": "2h"}, {}, {}, 120, 120),
        ({}, {"time-limit": "1"}, {}, {}, 1, 30),  # or the job would be warned, and so ended, as soon as it begins
        ({"activeDeadlineSeconds": 60}, {}, {}, {}, 3, 90),
        ({"activeDeadlineSeconds": 3600}, {}, {}, {}, 62, 120),
        ({"activeDeadlineSeconds": 3600}, {"time-limit": "30"}, {}, {}, 30, 120),
        ({}, {}, {"default_time_limit_minutes": 50}, {}, 50, 120),
        ({}, {}, {}, {"max_time_limit_minutes": 40}, 40, 120),
        ({}, {}, {"default_time_limit_minutes": 50}, {"max_time_limit_minutes": 40}, 40, 120),
    ],
)
def test_the_time_limit_and_its_warning(
    spec: Json, annotations: Json, pods: Json, rule: Json, minutes: int | None, warning: int
) -> None:
    result = job(spec, annotations, pods=pods, policy=[rule])
    assert (result.time_limit_minutes, result.warning_seconds) == (minutes, warning)


@pytest.mark.parametrize(
    ("spec", "annotations", "minutes"),
    [
        ({}, {"time-limit": "5"}, 15),
        ({}, {"time-limit": "16"}, 16),
        ({"activeDeadlineSeconds": 60}, {}, 15),
        ({}, {}, None),  # the partition's default
    ],
)
def test_no_time_limit_is_below_the_sites_minimum(spec: Json, annotations: Json, minutes: int | None) -> None:
    assert job(spec, annotations, pods={"minimum_time_limit_minutes": 15}).time_limit_minutes == minutes


def test_a_minimum_above_a_ceiling_is_refused_with_the_ceiling() -> None:
    with pytest.raises(PolicyError, match="15 minutes is more than"):
        job({}, {"time-limit": "5"}, pods={"minimum_time_limit_minutes": 15}, policy=[{"max_time_limit_minutes": 10}])


@pytest.mark.parametrize("deadline", [1, 59, 60, 61, 3599, 86400])
@pytest.mark.parametrize("grace", [0, 30, 3600])
def test_slurms_time_limit_never_comes_before_the_pods_own_deadline(deadline: int, grace: int) -> None:
    result = job({"activeDeadlineSeconds": deadline, "terminationGracePeriodSeconds": grace})
    assert result.time_limit_minutes is not None
    assert result.time_limit_minutes * 60 - result.warning_seconds >= deadline


@pytest.mark.parametrize(
    ("spec", "annotations", "rule", "field"),
    [
        ({}, {"time-limit": "2h"}, {"max_time_limit_minutes": 60}, "metadata.annotations[slurmlet.io/time-limit]"),
        ({"activeDeadlineSeconds": 7200}, {}, {"max_time_limit_minutes": 60}, "spec.activeDeadlineSeconds"),
        ({"overhead": {"cpu": "5"}}, {}, {"max_cpus": 4}, "spec.containers"),
        ({"overhead": {"memory": "2Gi"}}, {}, {"max_memory_mib": 2048}, "spec.containers"),
        ({}, {"gres": "gpu:3"}, {"max_gpus": 2}, "spec.containers"),
        ({}, {"account": "x"}, {}, "metadata.annotations[slurmlet.io/account]"),
        ({}, {"flags": "--hint=x"}, {}, "metadata.annotations[slurmlet.io/flags]"),
        ({}, {}, {"namespaces": ["other"]}, "metadata.namespace"),
    ],
)
def test_what_the_policy_forbids_is_refused_by_the_field_that_asks_for_it(
    spec: Json, annotations: Json, rule: Json, field: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        job(spec, annotations, policy=[rule])
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("spec", "annotations"), [({"hostPID": True}, {}), ({"overhead": {"cpu": "x"}}, {}), ({}, {"unheard-of": "x"})]
)
def test_what_can_not_be_honoured_is_a_translation_error(spec: Json, annotations: Json) -> None:
    with pytest.raises(TranslationError):
        job(spec, annotations)


def test_an_annotation_with_a_newline_never_reaches_a_script() -> None:
    with pytest.raises(InvalidAnnotationError):
        job(annotations={"partition": "cpu\n#SBATCH --uid=0"})


def test_gpus_of_resources_and_of_annotations_come_together() -> None:
    spec = {"initContainers": [], "overhead": {"nvidia.com/gpu": "2"}}
    assert job(spec, {"gres": "fpga:1", "gpu-type": "a100"}).gres == (Gres("gpu", "a100", 2), Gres("fpga", "", 1))


def test_a_gres_that_is_asked_for_in_two_ways_is_refused() -> None:
    with pytest.raises(InvalidAnnotationError, match="ask for gpu already") as caught:
        job({"overhead": {"nvidia.com/gpu": "2"}}, {"gres": "gpu:a100:2"})
    assert caught.value.field == "metadata.annotations[slurmlet.io/gres]"


def test_resources_become_the_jobs() -> None:
    pod = make_pod(container(resources=requests(cpu="1500m", memory="1Gi", ephemeral_storage="1Mi")))
    result = translate(pod, make_site(pods={"overhead_memory_mib": 64})).job
    assert (result.cpus, result.memory_mib, result.tmp_mib) == (2, 1088, 1)


@pytest.mark.parametrize(
    ("annotations", "cpus", "memory"),
    [
        ({}, 4, 500),
        ({"cpus-per-task": "2", "mem-per-node": "400"}, 4, 500),
        ({"cpus-per-task": "5", "mem-per-node": "600"}, 5, 600),
        ({"ntasks": "3"}, 2, 500),  # on a node: 6
        ({"nodes": "2"}, 4, 500),
    ],
)
def test_a_job_has_no_less_on_a_node_than_the_sites_minimums(annotations: Json, cpus: int, memory: int) -> None:
    named = {f"slurmlet.io/{name}": value for name, value in annotations.items()}
    pod = make_pod(container(resources=requests(cpu="1", memory="64Mi")), annotations=named)
    result = translate(pod, make_site(pods={"minimum_cpus": 4, "minimum_memory_mib": 500})).job
    assert (result.cpus, result.memory_mib) == (cpus, memory)


@pytest.mark.parametrize(
    ("annotations", "pods", "ceiling", "memory"),
    [
        ({}, {}, 2048, 2048),
        ({"nodes": "3"}, {}, 2048, 682),
        ({}, {"default_memory_mib": 100, "overhead_memory_mib": 28}, 2048, 128),
        ({}, {}, None, None),
        ({}, {}, 4096, 4000),  # the smallest node's
    ],
)
def test_memory_is_not_left_to_slurm_where_it_has_a_ceiling(
    annotations: Json, pods: Json, ceiling: int | None, memory: int | None
) -> None:
    named = {f"slurmlet.io/{name}": value for name, value in annotations.items()}
    site = make_site(pods=pods, policy=[{"max_memory_mib": ceiling}])
    nodes = tuple(make_node(str(size), memory_mib=size, partitions=frozenset({"cpu"})) for size in (4000, 8000, 8000))
    cluster = Cluster("c", "24.11", (Partition("cpu", True, True, None, None),), nodes)
    assert translate(make_pod(annotations=named), replace(site, cluster=cluster)).job.memory_mib == memory


def test_a_memory_ceiling_too_low_for_so_many_nodes_is_said_and_never_the_whole_nodes() -> None:
    with pytest.raises(PolicyError, match="MiB of memory"):
        job(annotations={"nodes": "9"}, policy=[{"max_memory_mib": 8}])


def test_raw_flags_pass_where_the_rule_allows_them() -> None:
    assert job(
        {}, {"flags": "--hint=nomultithread --begin 'now + 1'"}, policy=[{"raw_flags": True}]
    ).extra_arguments == (
        "--hint=nomultithread",
        "--begin",
        "now + 1",
    )


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("/opt/tool.sif", "is not below a path that the site allows for images"),
        ("/cvmfs2/tree", "is not below a path that the site allows for images"),
        ("/cvmfs/../etc", "must be a plain absolute path"),
        ("/", "holds the files of other pods"),
        ("//home/alice/.slurmlet", "holds the files of other pods"),
        ("/home/alice/.slurmlet/hpc/pods/x", "holds the files of other pods"),
        ("/cvmfs/cache/sif/x.sif", "holds the files of other pods"),
    ],
)
@pytest.mark.parametrize("kind", ["initContainers", "containers"])
def test_an_image_that_is_a_path_is_refused_unless_the_site_allows_it(image: str, words: str, kind: str) -> None:
    pod = make_pod(**{kind: [container(name="other", image=image)]})
    site = make_site(pods={"image_paths": ["/cvmfs", "/home"]})
    site = replace(site, root=Root(site.root.path, "/cvmfs/cache"))
    with pytest.raises(TranslationError, match=words) as caught:
        translate(pod, site)
    assert caught.value.field == f"spec.{kind}[0].image"


def test_an_image_below_an_allowed_path_is_accepted_and_the_runner_told_which_those_are() -> None:
    site = make_site(pods={"image_paths": ["/cvmfs"]})
    plan = translate(make_pod(container(image="/cvmfs/tree")), site).plan
    assert plan.image_paths == ("/cvmfs",)
    assert plan_from_json(to_json(plan)) == plan
