from typing import Any

import pytest

from slurm_plugin.runner.devices import variables
from slurm_plugin.runner.plan import Container, Ranks

from .jobs import container

RANKS = Ranks(2, 4, 2, 1, "pmix", (), label=False, gpus_per_task=0)


def gpu(first: int, count: int, **changes: Any) -> Container:
    return container("a", "true", gpu="nvidia", gpu_first=first, gpu_count=count, **changes)


@pytest.mark.parametrize(
    ("first", "count", "tokens", "expected"),
    [
        (0, 2, "0,1,2", "0,1"),
        (2, 1, "0,1,2", "2"),
        (0, 1, "3,5", "3"),
        (1, 1, "3,5", "5"),
        (1, 1, "MIG-aaaa,MIG-bbbb", "MIG-bbbb"),
        (0, 1, "GPU-6f5c", "GPU-6f5c"),
        (0, 1, "NoDevFiles", "NoDevFiles"),
    ],
)
def test_a_container_gets_its_part_of_the_tokens_as_they_stand(
    first: int, count: int, tokens: str, expected: str
) -> None:
    assert variables(gpu(first, count), {"CUDA_VISIBLE_DEVICES": tokens}) == {"CUDA_VISIBLE_DEVICES": expected}


def test_every_vendors_variable_is_shared_out_alike() -> None:
    host = {"ROCR_VISIBLE_DEVICES": "0,1", "GPU_DEVICE_ORDINAL": "0,1", "PATH": "/bin"}
    assert variables(gpu(1, 1), host) == {"ROCR_VISIBLE_DEVICES": "1", "GPU_DEVICE_ORDINAL": "1"}


def test_a_container_that_asks_for_none_is_told_of_none() -> None:
    assert variables(container("a", "true"), {"CUDA_VISIBLE_DEVICES": "0"}) == {}


def test_each_task_of_a_node_has_its_own_where_the_pod_says_so() -> None:
    each = gpu(1, 4, ranks=RANKS._replace(gpus_per_task=2))
    host = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4", "SLURM_LOCALID": "1"}
    assert variables(each, host) == {"CUDA_VISIBLE_DEVICES": "3,4"}


def test_tasks_have_all_of_the_containers_otherwise() -> None:
    host = {"CUDA_VISIBLE_DEVICES": "0,1,2", "SLURM_LOCALID": "1"}
    assert variables(gpu(0, 2, ranks=RANKS), host) == {"CUDA_VISIBLE_DEVICES": "0,1"}


def test_what_srun_binds_is_left_as_it_is() -> None:
    bound = gpu(0, 2, ranks=RANKS._replace(arguments=("--gpu-bind=single:1",)))
    assert variables(bound, {"CUDA_VISIBLE_DEVICES": "1"}) == {"CUDA_VISIBLE_DEVICES": "1"}
