"""Containers that were added to the pod while it ran: where they are read from."""

import json
import os
from typing import Iterator, Set

from slurm_plugin.jobdir import JobDir

from .plan import EPHEMERAL, Container, container_from_json


def added(directory: JobDir, known: Set[str]) -> Iterator[Container]:
    """Yield those that are not known, by name. OSError, ValueError, KeyError, TypeError: one of them can't be read."""
    try:
        names = sorted(os.listdir(directory.ephemeral))
    except FileNotFoundError:
        return
    for name in names:
        if name in known or name.startswith("."):
            continue  # what is just being staged has a name that no container has
        with open(os.path.join(directory.ephemeral_container(name), "container.json"), encoding="utf-8") as stream:
            container = container_from_json(json.load(stream))
        if container.name != name or container.kind != EPHEMERAL:
            raise ValueError("%s is not an ephemeral container" % name)
        yield container
