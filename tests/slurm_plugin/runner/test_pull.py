"""Images from a registry: logins, whom the cache serves, and one pull however many ask."""

import base64
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm_plugin.runner.cache import Cache
from slurm_plugin.runner.logins import Login
from slurm_plugin.runner.plan import Image, Runtime, to_json
from slurm_plugin.runner.pull import Paths, Puller, fetch
from slurm_plugin.runner.reference import Reference, RegistryError
from slurm_plugin.runner.registry import DeniedError, _authorization, find_digest

from .conftest import MakeJob
from .jobs import PROJECT, container, pod

NO_PATHS = Paths((), ())
DIGEST = "sha256:" + "ab" * 32
GOOD = Login("127.0.0.1", "me", "right")
BAD = Login("127.0.0.1", "me", "wrong")
APPTAINER = """\
#!/bin/sh
echo "$APPTAINER_DOCKER_USERNAME $APPTAINER_DOCKER_PASSWORD $*" >> "$CALLS"
for last; do before="$target"; target="$last"; done
sleep 0.3
echo image > "$before"
"""


class Registry(http.server.ThreadingHTTPServer):
    """A registry on loopback that knows one image. ``mode``: "open", "basic" or "bearer"."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode = "open"
        self.asked: list[tuple[str, str]] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Registry

    def do_HEAD(self) -> None:
        registry, given = self.server, self.headers.get("Authorization", "")
        registry.asked.append((self.path, given))
        wanted = {"open": "", "basic": _basic(GOOD), "bearer": "Bearer token"}[registry.mode]
        if wanted and given != wanted:
            challenge = 'Basic realm="r"' if registry.mode == "basic" else self._realm()
            self._answer(401, {"WWW-Authenticate": challenge})
        elif self.path.startswith("/v2/library/nothing/"):
            self._answer(404, {})
        else:
            self._answer(200, {"Docker-Content-Digest": DIGEST})

    def _realm(self) -> str:
        return f'Bearer realm="http://{self.server.host}/token",service="s",scope="repository:x:pull"'

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization", "")))
        if self.headers.get("Authorization") == _basic(GOOD):
            self._answer(200, {}, b'{"token": "token"}')
        else:
            self._answer(401, {})

    def _answer(self, code: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(code)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's own name
        """Say nothing."""


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


@pytest.fixture
def registry() -> Iterator[Registry]:
    server = Registry()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def ask(registry: Registry, *logins: Login, path: str = "library/busybox") -> tuple[str, Login | None]:
    return find_digest(Reference("docker", registry.host, path, "1"), logins, insecure=True)


@pytest.mark.parametrize("mode", ["basic", "bearer"])
def test_a_registrys_challenge_is_answered_with_the_login_that_it_takes(registry: Registry, mode: str) -> None:
    registry.mode = mode
    assert ask(registry, BAD, GOOD) == (DIGEST, GOOD)
    for logins in ((), (BAD,)):
        with pytest.raises(DeniedError, match="pull access denied"):
            ask(registry, *logins)


def test_an_open_registry_is_not_told_any_password(registry: Registry) -> None:
    assert ask(registry, GOOD) == (DIGEST, None)
    assert registry.asked == [("/v2/library/busybox/manifests/1", "")]


def test_an_image_that_is_not_there_is_not_denied(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="not found"):
        ask(registry, GOOD, path="library/nothing")


def test_a_password_is_not_sent_in_clear_to_a_third_party(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="in clear"):
        _authorization('Bearer realm="http://other.example/token"', GOOD, insecure=False)
    assert registry.asked == []


class Site:
    """A cache, an Apptainer that counts, and pods that fetch one image."""

    def __init__(self, registry: Registry, path: Path) -> None:
        self.calls = path / "calls"
        self.calls.touch()
        self.path = path
        self.cache = Cache(str(path / "images"))
        self.executable = path / "apptainer"
        self.executable.write_text(APPTAINER)
        self.executable.chmod(0o755)
        self._runtime = Runtime("apptainer", str(self.executable), ())
        self._host = registry.host
        self._source = f"docker://{registry.host}/library/busybox:1"

    @property
    def arguments(self) -> tuple[str, str, str]:
        """What to fetch, into which cache, with which program."""
        return self._source, self.cache.root, self._runtime.executable

    def fetch(self, *logins: Login, policy: str = "IfNotPresent", patience: float = 60) -> dict[str, Any]:
        file = self.path / f"logins-{len(logins)}"
        if logins:
            here = tuple(login._replace(pattern=self._host) for login in logins)
            file.write_text(json.dumps(to_json(here)))
        host = {"PATH": os.environ["PATH"], "CALLS": str(self.calls)}
        said: list[dict[str, Any]] = []
        image = Image("busybox", self._source, policy, insecure=True)
        fetch(image, Puller(self._runtime, Cache(self.cache.root), host, str(file), NO_PATHS, patience))(said.append)
        return said[-1]


@pytest.fixture
def site(registry: Registry, tmp_path: Path) -> Site:
    return Site(registry, tmp_path)


def test_apptainer_gets_the_login_by_its_environment_and_not_on_its_command_line(
    registry: Registry, site: Site
) -> None:
    registry.mode = "basic"
    assert site.fetch(GOOD)["ready"]["pulled"]
    (call,) = site.calls.read_text().splitlines()
    assert call.startswith("me right --silent build")
    assert "right" not in call.removeprefix("me right")


def test_a_cached_private_image_is_for_those_alone_whom_the_registry_gives_it(registry: Registry, site: Site) -> None:
    registry.mode = "basic"
    site.fetch(GOOD)
    for policy, reason in (("IfNotPresent", "ErrImagePull"), ("Never", "ErrImageNeverPull")):
        assert site.fetch(policy=policy)["failed"] == reason
        assert site.fetch(BAD, policy=policy)["failed"] == reason
    registry.asked.clear()
    assert not site.fetch(GOOD)["ready"]["pulled"]
    assert registry.asked == [], "a login that got it once need not ask again"
    assert len(site.calls.read_text().splitlines()) == 1


def test_what_anybody_may_pull_is_for_anybody_afterwards(registry: Registry, site: Site) -> None:
    registry.mode = "basic"
    site.fetch(GOOD)
    registry.mode = "open"
    assert "ready" in site.fetch()
    registry.mode = "basic"
    assert "ready" in site.fetch()


def test_an_image_that_the_site_put_into_the_cache_needs_no_registry(registry: Registry, site: Site) -> None:
    site.fetch()
    registry.mode = "basic"
    for note in Path(site.cache.root, "access").rglob("*"):
        if note.is_file():
            note.unlink()
    for directory in Path(site.cache.root, "access").iterdir():
        directory.rmdir()
    assert "ready" in site.fetch(policy="Never")


def test_what_a_pull_that_was_killed_left_in_the_cache_goes_with_the_next(registry: Registry, site: Site) -> None:
    site.cache.make()
    killed = Path(site.cache.root, "tmp", DIGEST.replace(":", "-") + ".cn9.4711.sif")
    other = killed.with_name("sha256-" + "cd" * 32 + ".cn9.4711.sif")
    for path in (killed, other):
        path.touch()
    assert site.fetch()["ready"]["pulled"]
    assert list(killed.parent.iterdir()) == [other], "that of another image may be being built"


def test_what_a_pull_that_is_cut_short_unpacked_on_the_node_goes_with_the_pod(
    registry: Registry, site: Site, job: MakeJob
) -> None:
    site.executable.write_text('#!/bin/sh\nmkdir "$APPTAINER_TMPDIR/build-temp"; touch "$CALLS.begun"; sleep 600\n')
    source, root, program = site.arguments
    image = Image("busybox", source, "IfNotPresent", insecure=True)
    runtime = Runtime("apptainer", program, ())
    j = job(pod(container("a", "true", image=image), runtime=runtime, images=root))
    runner = j.start(environment={"CALLS": str(site.calls)})
    j.wait_until(lambda _: Path(f"{site.calls}.begun").exists())
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(60) == 143
    assert list(j.scratch.iterdir()) == []


_MANY = """\
import os, sys
sys.path.insert(0, sys.argv[1])
from slurm_plugin.runner import registry  # HTTP is loaded once, by the parent
from slurm_plugin.runner.cache import Cache
from slurm_plugin.runner.plan import Image, Runtime
from slurm_plugin.runner.pull import Paths, Puller, fetch
_, _, source, root, executable = sys.argv
image = Image("busybox", source, "Always", True)
puller = Puller(Runtime("apptainer", executable, ()), Cache(root), dict(os.environ), root + "/none", Paths((), ()))
children = []
for _ in range(200):
    pid = os.fork()
    if pid == 0:
        puller = puller._replace(cache=Cache(root))
        said = []
        fetch(image, puller)(said.append)
        os._exit(0 if "ready" in said[-1] else 1)
    children.append(pid)
print(sorted({os.waitpid(pid, 0)[1] for pid in children}))
"""


@pytest.mark.slow
def test_two_hundred_pods_of_one_image_pull_it_once(registry: Registry, site: Site) -> None:
    argv = [sys.executable, "-I", "-S", "-c", _MANY, str(PROJECT), *site.arguments]
    environment = {"PATH": os.environ["PATH"], "CALLS": str(site.calls)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.strip() == "[0]", done.stderr
    assert len(site.calls.read_text().splitlines()) == 1
    assert os.listdir(Path(site.cache.root, "locks")) == []
    assert os.listdir(Path(site.cache.root, "tmp")) == []


def _local(site: Site, source: Path, *, apart: Path) -> dict[str, Any]:
    said: list[dict[str, Any]] = []
    paths = Paths((str(site.path / "open"),), (str(apart),))
    puller = Puller(Runtime("apptainer", "apptainer", ()), site.cache, {}, "", paths)
    fetch(Image(str(source), str(source), "IfNotPresent", insecure=False), puller)(said.append)
    return said[-1]


def test_an_image_that_is_a_path_is_where_its_links_lead_and_only_below_what_is_allowed(site: Site) -> None:
    pods, images = site.path / "pods", site.path / "open"
    for directory in (pods / "other", images / "tree", images / "root-of-pods"):
        directory.mkdir(parents=True)
    (images / "tree" / "pods").symlink_to(pods)
    (images / "good").symlink_to(images / "tree")
    assert _local(site, images / "good", apart=pods)["ready"]["path"] == str(images / "tree")
    for path in (pods, images / "tree" / "pods" / "other", site.path, images / "tree" / ".." / ".."):
        assert "no path that the site allows" in _local(site, path, apart=pods)["message"]
    for path in (images, images / "root-of-pods"):
        assert "no path that the site allows" in _local(site, path, apart=images / "root-of-pods")["message"]
    assert "no such file" in _local(site, images / "none", apart=pods)["message"]


@pytest.mark.slow
def test_a_pull_that_does_not_get_on_is_given_up_and_names_the_registry(registry: Registry, site: Site) -> None:
    working = site.executable.read_text()
    site.executable.write_text("#!/bin/sh\nsleep 100 & wait\n")
    answer = site.fetch(patience=0.5)
    assert answer == {"failed": "ErrImagePull", "message": f"{registry.host}: nothing came for 0 seconds; given up"}
    assert not any(Path(site.cache.root, "locks").iterdir()), "others may try"
    # Whatever time it takes, as long as it gets on.
    site.executable.write_text(
        working.replace("sleep 0.3", "for _ in 1 2 3 4 5 6; do sleep 0.5; head -c 100000 /dev/zero; done")
    )
    assert site.fetch(patience=2.5)["ready"]["pulled"]


@pytest.mark.usefixtures("registry")
def test_an_older_apptainer_that_answers_an_unknown_flag_with_its_manual_pulls_by_the_plain_way(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = site.path / "programs"
    programs.mkdir()
    (programs / "mksquashfs").write_text('#!/bin/sh\necho "mksquashfs $*" >> "$CALLS"\n')
    (programs / "mksquashfs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    working = site.executable.read_text().partition("\n")[2]
    site.executable.write_text(
        '#!/bin/sh\ncase "$*" in *--mksquashfs-args*)\n'
        "echo 'Error for command \"build\": unknown flag: --mksquashfs-args'; seq 5000; exit 1;; esac\n"
        "mksquashfs root image -noappend\n" + working
    )
    assert site.fetch()["ready"]["pulled"]
    squash, call = site.calls.read_text().splitlines()
    assert "--silent pull --force" in call
    assert squash == "mksquashfs root image -noappend -mem 64M -processors 2", "the job's memory is not the node's"


@pytest.mark.usefixtures("registry")
def test_of_a_manual_the_pod_hears_only_what_was_wrong(site: Site) -> None:
    site.executable.write_text("#!/bin/sh\necho 'Error for command: unknown flag: --x'; seq 5000; exit 1\n")
    assert site.fetch() == {"failed": "ErrImagePull", "message": "Error for command: unknown flag: --x"}
