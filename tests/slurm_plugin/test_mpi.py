from typing import Any

import pytest

from slurm_plugin.errors import InvalidAnnotationError, PolicyError
from slurm_plugin.job import Gres, Layout
from slurm_plugin.render import render
from slurm_plugin.runner.plan import Ranks, plan_from_json, to_json
from slurm_plugin.translate import Translation, translate

from .manifests import container, make_pod, make_site, requests

Json = dict[str, Any]


def ranks(*containers: Json, rule: Json | None = None, pods: Json | None = None, **annotations: str) -> Translation:
    named = {f"slurmlet.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    site = make_site(policy=[rule or {}], pods=pods or {"overhead_memory_mib": 0})
    return translate(make_pod(*containers, annotations=named), site)


def chosen(translation: Translation) -> Ranks:
    (found,) = [each.ranks for each in translation.plan.containers if each.ranks is not None]
    return found


@pytest.mark.parametrize(
    ("annotations", "layout"),
    [
        ({"nodes": "2"}, Layout(2, 2, 1)),
        ({"ntasks": "4"}, Layout(1, 4, 4)),
        ({"nodes": "2", "ntasks": "8"}, Layout(2, 8, 4)),
        ({"nodes": "2", "ntasks_per_node": "3"}, Layout(2, 6, 3)),
        ({"ntasks": "7", "ntasks_per_node": "2"}, Layout(4, 7, 2)),
        ({"nodes": "2", "ntasks": "3"}, Layout(2, 3, 2)),
        ({"mpi": "pmix"}, Layout(1, 1, 1)),
    ],
)
def test_what_is_not_said_of_nodes_and_tasks_follows_from_the_rest(annotations: Json, layout: Layout) -> None:
    translation = ranks(**annotations)
    assert translation.job.layout == layout
    assert (chosen(translation).nodes, chosen(translation).ntasks) == (layout.nodes, layout.ntasks)


def test_the_script_asks_for_nodes_and_tasks() -> None:
    script = render(ranks(container(resources=requests(cpu="3")), nodes="2", ntasks_per_node="4").job)
    for line in ("--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--cpus-per-task=3"):
        assert f"#SBATCH {line}\n" in script


def test_cpus_are_per_task_memory_and_gpus_per_node_and_helpers_on_every_node() -> None:
    main = container(resources={"limits": {"cpu": "1500m", "memory": "4Gi", "nvidia.com/gpu": 2}})
    helper = container("helper", resources=requests(cpu="2", memory="1Gi"))
    translation = ranks(main, helper, nodes="2", ntasks_per_node="4")
    assert translation.job.cpus == 3  # 4 tasks of 2, and 2 of the helper, among 4 tasks
    assert translation.job.memory_mib == 5 * 1024
    assert translation.job.gres == (Gres("gpu", "", 2),)
    assert chosen(translation).cpus_per_task == 2
    assert [each.ranks is not None for each in translation.plan.containers] == [True, False]


def test_what_the_other_containers_ask_for_is_added_to_the_cpus_of_the_annotation() -> None:
    translation = ranks(container(), container("helper", resources=requests(cpu="2")), ntasks="4", cpus_per_task="3")
    assert translation.job.cpus == 4  # 4 tasks of 3, and 2 of the helper, among 4 tasks
    assert chosen(translation).cpus_per_task == 3


def test_an_annotation_names_the_container_that_runs_on_every_rank() -> None:
    translation = ranks(container("a"), container("b"), ntasks="2", mpi_container="b")
    assert [each.ranks is not None for each in translation.plan.containers] == [False, True]


@pytest.mark.parametrize(
    ("annotations", "name"),
    [
        ({"nodes": "3", "ntasks": "2"}, "ntasks"),
        ({"nodes": "1", "ntasks": "4", "ntasks_per_node": "2"}, "ntasks"),
        ({"nodes": "0"}, "nodes"),
        ({"nodes": "two"}, "nodes"),
        ({"nodes": "2", "mpi": "pmix --uid=0"}, "mpi"),
        ({"nodes": "2", "mpi_container": "nobody"}, "mpi-container"),
        ({"nodes": "2", "srun_args": "--hint=nomultithread; id"}, "srun-args"),
        ({"nodes": "2", "gpus_per_task": "1"}, "gpus-per-task"),
        ({"gpus_per_task": "1"}, "gpus-per-task"),
        ({"label_ranks": "true"}, "label-ranks"),
        ({"srun_args": "--hint=nomultithread"}, "srun-args"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_annotation(annotations: Json, name: str) -> None:
    with pytest.raises(InvalidAnnotationError) as caught:
        ranks(**annotations)
    assert caught.value.field == f"metadata.annotations[slurmlet.io/{name}]"


@pytest.mark.parametrize("word", ["--task-prolog=/x", "--output=/x", "--jobid=1", "--uid=0", "--prolog=/x", "--chdir=/", "--dist=cyclic"])  # fmt: skip
def test_srun_gets_only_options_that_the_policy_lists_by_their_whole_names(word: str) -> None:
    with pytest.raises(PolicyError) as caught:
        ranks(nodes="2", srun_args=word)
    assert caught.value.field == "metadata.annotations[slurmlet.io/srun-args]"
    assert "--distribution" in str(caught.value)


def test_allowed_options_of_srun_and_the_sites_mpi_reach_the_plan() -> None:
    site = {"mpi": "pmix"}
    found = chosen(ranks(nodes="2", srun_args="--distribution=cyclic --kill-on-bad-exit=1", pods=site))
    assert found.arguments == ("--distribution=cyclic", "--kill-on-bad-exit=1")
    assert found.mpi == "pmix"
    assert chosen(ranks(nodes="2", mpi="pmi2", pods=site)).mpi == "pmi2"


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ({"max_nodes": 1}, "2 nodes"),
        ({"max_cpus": 7}, "8 CPUs"),
        ({"max_memory_mib": 2047}, "2048 MiB of memory"),
        ({"max_gpus": 3}, "4 GPUs"),
    ],
)
def test_ceilings_are_on_all_nodes_together(rule: Json, what: str) -> None:
    main = container(resources={"limits": {"cpu": 2, "memory": "1Gi", "nvidia.com/gpu": 2}})
    with pytest.raises(PolicyError, match=what):
        ranks(main, nodes="2", ntasks_per_node="2", rule=rule)


def test_srun_may_bind_gpus_only_where_nobody_else_has_any() -> None:
    gpu = {"limits": {"nvidia.com/gpu": 1}}
    bind = {"nodes": "2", "srun_args": "--gpu-bind=single:1"}
    assert ranks(container(resources=gpu), **bind)
    with pytest.raises(InvalidAnnotationError, match="gpu-bind"):
        ranks(container(resources=gpu), container("other", resources=gpu), **bind)


def test_a_plan_with_ranks_survives_its_file() -> None:
    plan = ranks(nodes="2", srun_args="--hint=nomultithread").plan
    assert plan_from_json(to_json(plan)) == plan


def test_an_ordinary_pod_is_one_task_on_one_node() -> None:
    translation = ranks()
    assert translation.job.layout == Layout(1, 1, 1)
    assert "ntasks-per-node" not in render(translation.job)
