"""Which of the job's GPUs a container gets, in Slurm's own words. Pure.

Slurm names a job's devices by a list of tokens: indexes, or ids of MIG devices. A container gets its part of that list as
it stands; to renumber it would name other devices, for indexes count the devices that the job's own list leaves visible.
"""

from typing import Dict, Mapping, Tuple

from .plan import Container

_VARIABLES = ("CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
_WORDS = ("", "all", "none", "void", "NoDevFiles")  # not lists


def _bound(container: Container) -> bool:
    """Return whether srun chooses each task's devices itself."""
    arguments = container.ranks.arguments if container.ranks is not None else ()
    return any(word.startswith("--gpu-bind=") and word != "--gpu-bind=none" for word in arguments)


def _part(container: Container, host: Mapping[str, str]) -> Tuple[int, int]:
    """Return where the container's tokens begin, and how many they are; one task's of them if each has its own."""
    per_task = container.ranks.gpus_per_task if container.ranks is not None else 0
    if not per_task:
        return container.gpu_first, container.gpu_count
    return container.gpu_first + per_task * int(host.get("SLURM_LOCALID") or 0), per_task


def variables(container: Container, host: Mapping[str, str]) -> Dict[str, str]:
    """Return the variables that name a container's devices, from those that name the job's on this node."""
    if not container.gpu:
        return {}
    found = {name: host[name] for name in _VARIABLES if name in host}
    if _bound(container):
        return found
    first, count = _part(container, host)
    return {
        name: value if value in _WORDS else ",".join(value.split(",")[first : first + count])
        for name, value in found.items()
    }
