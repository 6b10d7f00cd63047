"""An OCI registry on loopback, over plain HTTP, with the images of `images`: Debian's docker-registry, run in the site.

`busybox:1.36` of a manifest is `REGISTRY/library/busybox:1.36` here, as it is `docker.io/library/busybox:1.36` elsewhere: whoever pulls
needs a registry mirror setting, and has to allow HTTP (`apptainer pull --no-https`).

A second one has the same images behind a password: `PRIVATE_USER`, `PRIVATE_PASSWORD`.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

from testbed import images, processes, progress
from testbed.paths import Layout
from testbed.ports import Port
from testbed.site import ensure_namespace, mounts
from testbed.site.namespace import Namespace

DAEMON = "registry"
_USER = "docker-registry"
_CONFIGURATION = "/etc/docker/registry/config.yml"
PRIVATE_DAEMON = "private-registry"
PRIVATE_USER = "puller"
PRIVATE_PASSWORD = "let-me-in"  # noqa: S105  of a registry on loopback, with nothing in it that is a secret
_PRIVATE_CONFIGURATION = "/etc/docker/registry/private.yml"
_HTPASSWD = "/etc/docker/registry/htpasswd"
_HASH = "$2y$05$abcdefghijklmnopqrstuu3Jd./u/rH1RxB6auX5v7gLP6uWhKCgG"  # of that password, by bcrypt


class Registry:
    """The registry; a component of the testbed. It shares the site's namespace, whichever Slurm is there."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._namespace = Namespace(layout)

    @property
    def endpoint(self) -> str:
        """`127.0.0.1:PORT`."""
        return self._layout.endpoint(Port.REGISTRY)

    @property
    def private_endpoint(self) -> str:
        """`127.0.0.1:PORT` of the one with a password."""
        return self._layout.endpoint(Port.PRIVATE_REGISTRY)

    def ensure(self) -> None:
        """Start the registries, make the images that are missing and push them; idempotent.

        Raises:
            TestbedError: the registry does not come up, or an image cannot be made or pushed.
        """
        site = ensure_namespace(self._layout)
        site.write(_CONFIGURATION, configuration(self.endpoint))
        site.start(DAEMON, ("docker-registry", "serve", _CONFIGURATION), user=_USER)

        site.write(_HTPASSWD, f"{PRIVATE_USER}:{_HASH}\n")
        site.write(_PRIVATE_CONFIGURATION, configuration(self.private_endpoint, htpasswd=_HTPASSWD))
        site.start(PRIVATE_DAEMON, ("docker-registry", "serve", _PRIVATE_CONFIGURATION), user=_USER)

        def answers() -> bool:
            processes.require(self._layout, DAEMON)
            processes.require(self._layout, PRIVATE_DAEMON)
            return self._status("") == 200

        log = self._layout.log(DAEMON)
        processes.wait_until("The registry answers", answers, timeout_seconds=15, log=log)
        for image in images.IMAGES:
            busybox = Path(f"{site.root}/usr/bin/busybox")
            made = images.ensure(self._layout.cache / "images", image, busybox=busybox)
            if self._status(f"{image.repository}/manifests/{image.tag}") != 200:
                self._push(made, image)

    def stop(self) -> None:
        """Stop the registries; pushed images stay in the state directory. Idempotent."""
        processes.stop(self._layout, DAEMON)
        processes.stop(self._layout, PRIVATE_DAEMON)
        self._namespace.release()

    def status(self) -> list[tuple[str, str]]:
        """Return which registries run."""
        daemons = {DAEMON: self.endpoint, PRIVATE_DAEMON: self.private_endpoint}
        return [
            (daemon, f"running, {endpoint}" if processes.alive(self._layout, daemon) else "not running")
            for daemon, endpoint in daemons.items()
        ]

    def environment(self) -> dict[str, str]:
        """Return the variables that lead to the registries."""
        return {
            "SLURMLET_TESTBED_REGISTRY": self.endpoint,
            "SLURMLET_TESTBED_PRIVATE_REGISTRY": self.private_endpoint,
        }

    def _push(self, made: Path, image: images.Image) -> None:
        with progress.step(f"Pushing the image {image.reference}"):
            source = f"oci:{mounts.IMAGES}/{made.name}:{image.tag}"
            target = f"docker://{self.endpoint}/{image.reference}"
            insecure = ("--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false")
            self._namespace.check(("skopeo", *insecure, source, target), timeout_seconds=120)

    def _status(self, path: str) -> int:
        """Return the status of HEAD on a path of the registry's API, 0 when nobody answers."""
        accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        request = urllib.request.Request(f"http://{self.endpoint}/v2/{path}", headers=accept, method="HEAD")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0


def configuration(endpoint: str, *, htpasswd: str = "") -> str:
    """Return docker-registry's configuration as YAML (JSON is YAML): blobs in its own directory, no telemetry. Pure.

    ``htpasswd`` is a file of users and passwords; empty lets everybody in.
    """
    who = {"auth": {"htpasswd": {"realm": "testbed", "path": htpasswd}}} if htpasswd else {}
    return json.dumps(
        {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": "/var/lib/docker-registry"}, "delete": {"enabled": True}},
            "http": {"addr": endpoint},
            **who,
        },
        indent=2,
    )
