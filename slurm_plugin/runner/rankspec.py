"""What each rank is told: one file in the job's directory (0600, for it holds the environment), read on every node.

Everything of the container that is the same on all nodes is resolved before; what a node or a rank has of its own
(scratch space, PMI's variables, devices) is found by the rank itself (``rank``).
"""

import json
import os
from typing import Any, Dict, NamedTuple, Optional, Tuple

from .image import ReadyImage, config_from_json, config_to_json
from .plan import Container, Runtime, container_from_json, to_json
from .runtimes import Bind


class RankSpec(NamedTuple):
    """``directory``: the job's. ``node``: the first one, where the runner is; ``scratch`` and ``binds`` are for that alone.

    ``memory``: what all ranks of the first node share as /dev/shm. ``scratch_name``: of the pod's scratch directory, of
    which other nodes have their own. ``run``: the name of this run of the container. ``pod_ips``: for /etc/hosts.
    """

    directory: str
    node: str
    scratch: str
    scratch_name: str
    memory: str
    run: str
    message_path: str
    pod_ips: Tuple[str, ...]
    container: Container
    runtime: Runtime
    image: ReadyImage
    command: Tuple[str, ...]
    arguments: Tuple[str, ...]
    working_dir: str
    environment: Dict[str, str]
    binds: Tuple[Bind, ...]


def _image_json(image: ReadyImage) -> Dict[str, Any]:
    config = None if image.config is None else config_to_json(image.config)
    return {"path": image.path, "image_id": image.image_id, "config": config}


def write_spec(path: str, spec: RankSpec) -> None:
    """Write it, whole or not at all."""
    fields = dict(zip(spec._fields, (to_json(value) for value in spec)), image=_image_json(spec.image))
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = path + ".tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
        json.dump(fields, stream)
    os.rename(temporary, path)


def read_spec(path: str) -> RankSpec:
    """Read it. OSError, ValueError, KeyError, TypeError: it is missing or broken."""
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        data = json.load(stream)
    image = data["image"]
    config: Optional[Any] = None if image["config"] is None else config_from_json(image["config"])
    strings = {name: tuple(data[name]) for name in ("pod_ips", "command", "arguments")}
    fields = dict(
        data,
        container=container_from_json(data["container"]),
        runtime=Runtime(data["runtime"]["kind"], data["runtime"]["executable"], tuple(data["runtime"]["options"])),
        image=ReadyImage(image["path"], image["image_id"], config),
        binds=tuple(Bind(**dict(bind, identity=tuple(bind["identity"]))) for bind in data["binds"]),
        **strings,
    )
    return RankSpec(**fields)
