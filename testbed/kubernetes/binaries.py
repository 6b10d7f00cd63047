"""The control plane's programs: ready-made on this machine, cached, downloaded, or built with Go, in this order.

Every source gives all five programs or none: a cluster of mixed origins is one that nobody else runs. What was
downloaded or built stays in the cache under its version, where it appears only once it is complete.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from testbed.errors import TestbedError
from testbed.kubernetes.download import download
from testbed.kubernetes.gobuild import build
from testbed.kubernetes.versions import ETCD_MINIMUM, ETCD_VERSION, KUBERNETES_MINOR, KUBERNETES_VERSION, PROGRAMS
from testbed.locking import locked
from testbed.paths import Layout
from testbed.progress import say

Programs = Mapping[str, Path]
"""Absolute paths by program name, for each of PROGRAMS."""

_ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"
_ANSWER_SECONDS = 20


def find_programs(layout: Layout, environment: Mapping[str, str] = os.environ) -> Programs:
    """All five programs; idempotent, at once when they are installed or cached, minutes when they must be built.

    Raises TestbedError when no source has them.
    """
    installed = installed_programs(environment)
    if installed is not None:
        return installed
    cached = layout.cache / f"kubernetes-{KUBERNETES_VERSION}-etcd-{ETCD_VERSION}"
    if not cached.is_dir():
        with locked(layout.cache / "kubernetes.lock"):
            if not cached.is_dir():
                _make(cached, layout.cache)
    return {name: cached / name for name in PROGRAMS}


def installed_programs(environment: Mapping[str, str]) -> Programs | None:
    """All five from KUBEBUILDER_ASSETS and PATH, or None when one is missing or has another minor version."""
    search = os.pathsep.join(filter(None, (environment.get(_ASSETS_VARIABLE), environment.get("PATH"))))
    found = {name: shutil.which(name, path=search) for name in PROGRAMS}
    paths = {name: Path(path) for name, path in found.items() if path}
    if len(paths) < len(PROGRAMS) or not all(is_wanted(name, _version(name, path)) for name, path in paths.items()):
        return None
    return paths


def is_wanted(name: str, answer: str) -> bool:
    """Whether `answer`, what the program said of its version, is the pinned minor (for etcd: one it works with)."""
    match = re.search(r"(\d+)\.(\d+)\.\d+", answer)
    if match is None:
        return False
    minor = (int(match[1]), int(match[2]))
    return minor >= ETCD_MINIMUM if name == "etcd" else minor == KUBERNETES_MINOR


def _version(name: str, path: Path) -> str:
    arguments = ["version", "--client"] if name == "kubectl" else ["--version"]
    try:
        answer = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        say(f"  {path} is passed over: {error}")
        return ""
    return answer.stdout


def _make(cached: Path, cache: Path) -> None:
    partial = cached.with_name(cached.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        download(partial)
    except TestbedError as unavailable:
        say(f"  {unavailable} Building it here instead, once; this takes some minutes.")
        shutil.rmtree(partial)
        partial.mkdir()
        build(partial, cache)
    partial.rename(cached)
