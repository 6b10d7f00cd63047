"""Downloads the control plane's programs from the projects' release servers, each verified by its published checksum."""

import hashlib
import platform
import tarfile
import threading
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from queue import SimpleQueue

from testbed.errors import TestbedError
from testbed.kubernetes.versions import ETCD_VERSION, KUBERNETES_VERSION, PROGRAMS
from testbed.progress import step

_KUBERNETES = f"https://dl.k8s.io/release/v{KUBERNETES_VERSION}/bin/linux"
_ETCD = f"https://github.com/etcd-io/etcd/releases/download/v{ETCD_VERSION}"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_FIRST_ANSWER_SECONDS = 5.0
_SOCKET_SECONDS = 20.0
_CHUNK_BYTES = 1 << 20
_FAILURES = (OSError, HTTPException)
"""What a download may end with; an answer that breaks off is an HTTPException, and that is no OSError."""


def download(target: Path) -> None:
    """Put all PROGRAMS into the directory `target`, executable.

    Raises TestbedError within seconds when a server cannot be reached, or when a checksum does not match.
    """
    architecture = _ARCHITECTURES.get(platform.machine())
    if architecture is None:
        raise TestbedError(f"Kubernetes publishes no programs that we know of for {platform.machine()}.")
    binaries = f"{_KUBERNETES}/{architecture}"
    archive = f"etcd-v{ETCD_VERSION}-linux-{architecture}.tar.gz"
    etcd_sums = _text(f"{_ETCD}/SHA256SUMS")
    sums = {name: _text(f"{binaries}/{name}.sha256").strip() for name in PROGRAMS if name != "etcd"}
    for name, sha256 in sums.items():
        _fetch(f"{binaries}/{name}", target / name, sha256)
    _fetch(f"{_ETCD}/{archive}", target / archive, checksum_of(archive, etcd_sums))
    _unpack_etcd(target / archive, target / "etcd")
    (target / archive).unlink()
    for name in PROGRAMS:
        (target / name).chmod(0o755)


def checksum_of(file_name: str, sums: str) -> str:
    """The SHA-256 of `file_name` in `sums`, the text of a `SHA256SUMS` file; raises TestbedError when it has none."""
    for line in sums.splitlines():
        digest, _, name = line.partition("  ")
        if name.strip() == file_name:
            return digest
    raise TestbedError(f"The published SHA256SUMS does not name {file_name}.")


def _text(url: str) -> str:
    """The text at `url`. The deadline covers name resolution too, which a socket's time-out does not."""
    answers: SimpleQueue[str | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=_FIRST_ANSWER_SECONDS) as response:  # noqa: S310  https, see above
                answers.put(response.read().decode())
        except _FAILURES as error:
            answers.put(error)

    asking = threading.Thread(target=ask, name=f"asking for {url}", daemon=True)
    asking.start()
    asking.join(_FIRST_ANSWER_SECONDS)
    answer: str | Exception = TimeoutError("no answer") if answers.empty() else answers.get()
    if isinstance(answer, Exception):
        raise TestbedError(f"{url} cannot be downloaded ({answer}).") from answer
    return answer


def _fetch(url: str, file: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    with step(f"Downloading {url}"):
        try:
            with urllib.request.urlopen(url, timeout=_SOCKET_SECONDS) as response, file.open("wb") as out:  # noqa: S310
                while chunk := response.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    out.write(chunk)
        except _FAILURES as error:
            raise TestbedError(f"{url} cannot be downloaded ({error}).") from error
    if digest.hexdigest() != sha256:
        raise TestbedError(f"{url} has SHA-256 {digest.hexdigest()}, but {sha256} is published.")


def _unpack_etcd(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as files:
        for member in files:
            if member.isfile() and Path(member.name).name == "etcd":
                content = files.extractfile(member)
                if content is not None:
                    target.write_bytes(content.read())
                    return
    raise TestbedError(f"{archive.name} holds no file named etcd.")
