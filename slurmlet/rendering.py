"""``slurmlet render``: what would be submitted for a pod, without any cluster."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from slurm_plugin import archive
from slurm_plugin.config import SiteSettings, SSHHostSettings
from slurm_plugin.errors import ConfigurationError, TranslationError
from slurm_plugin.jobdir import Root
from slurm_plugin.pod import Pod
from slurm_plugin.policy import rule_for
from slurm_plugin.render import render
from slurm_plugin.runner.plan import to_json
from slurm_plugin.translate import Site, Translation, translate

from .documents import explain, read_documents

_NO_UID = "00000000-0000-0000-0000-000000000000"


def _pods(path: Path) -> list[dict[str, Any]]:
    pods = []
    for document in read_documents(path):
        kind = document.get("kind") if isinstance(document, dict) else type(document).__name__
        if kind != "Pod":
            raise ConfigurationError(f"{path}: expected a Pod, found {kind}")
        pods.append(document)
    if not pods:
        raise ConfigurationError(f"{path}: holds no Pod")
    return pods


def _root(settings: SiteSettings, pod: Pod, node: str) -> Root:
    """Return the root of the pod's Slurm user; USER and /HOME stand for what only the login node knows."""
    host = settings.slurm.host
    user = rule_for(settings.policy, pod).user or (host.user if isinstance(host, SSHHostSettings) else "USER")
    return settings.slurm.root_for(user=user, home="/HOME", node=node)


def _translate(path: Path, document: dict[str, Any], settings: SiteSettings, node: str) -> Translation:
    try:
        pod = Pod.model_validate(document)
    except ValidationError as error:
        raise explain(path, error, document) from error
    if not pod.metadata.uid:
        pod = pod.model_copy(update={"metadata": pod.metadata.model_copy(update={"uid": _NO_UID})})
    try:
        root = _root(settings, pod, node)
        digest = archive.build().digest
        return translate(pod, Site(settings, root, root.archive(digest), digest))
    except TranslationError as error:
        raise ConfigurationError(f"{path}: pod {pod.metadata.namespace}/{pod.metadata.name}: {error}") from error


def render_file(path: Path, settings: SiteSettings, *, node: str) -> str:
    """Return the batch script and the runner's plan of each pod in a file, as ``node`` would submit it.

    Raises ConfigurationError naming the file, the pod and the field.
    """
    parts = []
    for document in _pods(path):
        translation = _translate(path, document, settings, node)
        plan = json.dumps(to_json(translation.plan), indent=2, ensure_ascii=False)
        parts.append(f"{render(translation.job)}\n# plan.json, for the runner:\n{plan}\n")
    return "\n".join(parts)
