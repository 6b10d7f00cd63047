"""Small container images, made here from Debian's packages, as OCI layouts in the cache.

They carry the names that anyone's manifests use (`busybox:1.36`, `python:3.11-slim`) and behave like their models where it
matters: entry point, command, environment, working directory. One more exists for tests of exactly these rules. The
format is the OCI image layout and image configuration, version 1.0.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testbed import mpi, progress
from testbed.site import cached
from testbed.site.debian import Debian

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_RECIPE = 1  # raise it when a tree below is made differently
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # Go's names, which OCI uses
_NOT_IN_IMAGES = ("dev", "proc", "sys", "run")  # present, but empty


@dataclasses.dataclass(frozen=True, slots=True)
class Configuration:
    """What an image says about how to run it: the `config` object of an OCI image configuration."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = (_PATH,)
    working_dir: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the object under its OCI names; what is not set is left out, as builders do."""
        fields = {"Entrypoint": self.entrypoint, "Cmd": self.cmd, "Env": self.env, "WorkingDir": self.working_dir}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items() if value}


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """An image: the repository and tag it has in the registry, the tree it holds, and its configuration."""

    repository: str
    tag: str
    tree: str
    configuration: Configuration

    @property
    def reference(self) -> str:
        """`repository:tag`, without a registry."""
        return f"{self.repository}:{self.tag}"

    @property
    def directory(self) -> str:
        """The name of its layout in the cache; another content has another name."""
        recipe = (_RECIPE, dataclasses.astuple(self), platform.machine())
        digest = hashlib.sha256(repr(recipe).encode()).hexdigest()[:12]
        return f"{self.repository.replace('/', '-')}-{self.tag}-{digest}"


IMAGES = (
    Image("library/busybox", "1.36", "busybox", Configuration(cmd=("sh",))),
    Image("library/python", "3.11-slim", "python", Configuration(cmd=("python3",), env=(_PATH, "LANG=C.UTF-8"))),
    Image(
        "slurmlet/test-entrypoint",
        "1",
        "busybox",
        Configuration(
            entrypoint=("/bin/sh", "-c"),
            cmd=('echo "$GREETING from $PWD"',),
            env=(_PATH, "GREETING=hello"),
            working_dir="/data",
        ),
    ),
    Image("slurmlet/test-mpi", "1", "mpi", Configuration(cmd=("mpi-check-openmpi",))),
)


def ensure(cache: Path, image: Image, *, busybox: Path) -> Path:
    """Return the image's OCI layout below `cache`, making it when it is not there; `busybox` is a static one.

    Idempotent; Debian's Python takes about a minute, the MPI libraries two, the others no time.

    Raises:
        TestbedError: Debian's packages could not be fetched or installed.
    """

    def make(layout: Path, log: Path) -> None:
        tree = layout.with_name(f"{layout.name}.tree")
        if tree.exists():
            shutil.rmtree(tree)
        with progress.step(f"Building the image {image.reference}"):
            _TREES[image.tree](tree, log, busybox)
            (tree / image.configuration.working_dir.lstrip("/")).mkdir(exist_ok=True)
            write_layout(layout, tree, image)
            shutil.rmtree(tree)

    return cached.once(cache / image.directory, make)


def write_layout(layout: Path, tree: Path, image: Image) -> None:
    """Write an OCI layout with one image of one layer, which holds `tree`."""
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer, diff_id = _write_layer(blobs, tree)
    configuration = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": image.configuration.as_json(),
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _write_json(blobs, configuration, "application/vnd.oci.image.config.v1+json"),
        "layers": [layer],
    }
    entry = _write_json(blobs, manifest, manifest["mediaType"])
    entry["annotations"] = {"org.opencontainers.image.ref.name": image.tag}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}), encoding="utf-8")
    (layout / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}), encoding="utf-8")


def _write_json(blobs: Path, value: object, media_type: object) -> dict[str, Any]:
    data = json.dumps(value).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _write_layer(blobs: Path, tree: Path) -> tuple[dict[str, Any], str]:
    """Write the tree as a gzipped tar; return the layer's descriptor and the digest of the plain tar (`diff_id`)."""
    partial, plain = blobs / "layer", blobs / "layer.tar"
    with tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as tar:
        for entry in sorted(tree.iterdir()):
            # Times are kept: Python's compiled modules are valid only for sources of their time.
            tar.add(entry, arcname=entry.name, recursive=entry.name not in _NOT_IN_IMAGES)
    with plain.open("rb") as source, gzip.GzipFile(partial, "wb", compresslevel=6, mtime=0) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    diff_id, digest = _digest(plain), _digest(partial)
    plain.unlink()
    descriptor = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": f"sha256:{digest}",
        "size": partial.stat().st_size,
    }
    partial.rename(blobs / digest)
    return descriptor, f"sha256:{diff_id}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _busybox_tree(tree: Path, _log: Path, busybox: Path) -> None:
    """One static program under all its names, and the files without which no user or name is found."""
    for directory in ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr/bin", "var/tmp"):
        (tree / directory).mkdir(parents=True)
    for directory in ("tmp", "var/tmp"):
        (tree / directory).chmod(0o1777)
    shutil.copy2(busybox, tree / "bin" / "busybox")
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        if name != "busybox":
            (tree / "bin" / name).symlink_to("busybox")
    (tree / "usr/bin/env").symlink_to("../../bin/busybox")  # where scripts look for it
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")
    (tree / "etc/group").write_text("root:x:0:\nnobody:x:65534:\n")


def _python_tree(tree: Path, log: Path, _busybox: Path) -> None:
    """Debian 12, whose Python is 3.11, less what a slim image leaves out; `python` is there as in the model."""
    debian = Debian(tree, log)
    debian.bootstrap("bookworm", "python3", "ca-certificates")
    debian.inside("apt-get", "clean")
    debian.remove("var/lib/apt/lists/*", "var/cache/*", "var/log/*", "usr/share/locale/*", "usr/share/man/*")
    debian.remove("usr/share/doc/*", "usr/share/info/*", "debootstrap")
    for name in ("python", "python3"):
        (tree / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
    debian.inside("python3", "-m", "compileall", "-q", "/usr/lib/python3.11")


def _mpi_tree(tree: Path, log: Path, _busybox: Path) -> None:
    """Debian with Open MPI and MPICH, and a program of each."""
    mpi.make_tree(tree, log)


_TREES: dict[str, Callable[[Path, Path, Path], None]] = {
    "busybox": _busybox_tree,
    "python": _python_tree,
    "mpi": _mpi_tree,
}
