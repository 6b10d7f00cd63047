import time

import pytest

from slurm_plugin.config import RegistrySettings
from slurm_plugin.images import parse_reference, pull_policy, resolve

SHA256, SHA384, SHA512 = f"sha256:{'a' * 64}", f"sha384:{'b' * 96}", f"sha512:{'c' * 128}"


@pytest.mark.parametrize(
    ("name", "registry", "path", "tag", "digest"),
    [
        ("busybox", "docker.io", "library/busybox", "latest", ""),
        ("busybox:1.36", "docker.io", "library/busybox", "1.36", ""),
        ("library/busybox", "docker.io", "library/busybox", "latest", ""),
        ("docker.io/busybox", "docker.io", "library/busybox", "latest", ""),
        ("index.docker.io/busybox", "docker.io", "library/busybox", "latest", ""),
        ("docker.io/a/b:t", "docker.io", "a/b", "t", ""),
        ("a/b/c", "docker.io", "a/b/c", "latest", ""),
        ("localhost/a", "localhost", "a", "latest", ""),
        ("Upper/a", "Upper", "a", "latest", ""),
        ("host:5000/a/b:T_1.2-3", "host:5000", "a/b", "T_1.2-3", ""),
        ("127.0.0.1:5000/a", "127.0.0.1:5000", "a", "latest", ""),
        ("[2001:db8::1]:5000/a", "[2001:db8::1]:5000", "a", "latest", ""),
        ("xn--n3h.com/a", "xn--n3h.com", "a", "latest", ""),
        (f"a@{SHA256}", "docker.io", "library/a", "", SHA256),
        (f"a:t@{SHA512}", "docker.io", "library/a", "t", SHA512),
        (f"r.io/a@{SHA384}", "r.io", "a", "", SHA384),
        ("r.io/a__b/c-----d/e.f_g", "r.io", "a__b/c-----d/e.f_g", "latest", ""),
        ("r.io/a:" + "t" * 128, "r.io", "a", "t" * 128, ""),
        ("r.io/" + "a" * 255, "r.io", "a" * 255, "latest", ""),
        ("0", "docker.io", "library/0", "latest", ""),
    ],
)  # fmt: skip
def test_names_are_read_as_kubernetes_reads_them(name: str, registry: str, path: str, tag: str, digest: str) -> None:
    reference = parse_reference(name)
    assert (reference.registry, reference.path, reference.tag, reference.digest) == (registry, path, tag, digest)


@pytest.mark.parametrize(
    "name",
    ["", "/", "a/", "//a", "a//b", ":tag", "a:", "a:t:u", "a:.t", "a:" + "t" * 129, "a@", "a@sha256:abc", f"a@sha256:{'a' * 65}",
     f"a@sha512:{'a' * 64}", f"a@{SHA256.upper()}", f"a@md5:{'a' * 32}", "A", "a/B", "r.io/A", "-a", "a-", "a._b", "a___b", "a..b",
     "foo./a", "-r.io/a", "r-.io/a", "r.io:/a", "r.io:x/a", "[::1/a", "a b", " a", "a ", "a\n", "á", "٣", "a\0", "a" * 64,
     "http://r.io/a", "r.io/" + "a" * 256, "${HOME}", "$(id)", "a;b", "../a", "a/../b", "r.io/"],
)  # fmt: skip
def test_what_is_no_name_is_refused_in_kubernetes_words(name: str) -> None:
    with pytest.raises(ValueError, match=r"^couldn't parse image name"):
        parse_reference(name)


@pytest.mark.parametrize(
    "name", ["a" * 50_000 + ".!/x", "a-" * 50_000 + "/x", "r.io/" + "a_" * 50_000 + "!", "r." * 50_000 + "!/x"]
)
def test_no_name_takes_long_to_read(name: str) -> None:
    begun = time.monotonic()
    with pytest.raises(ValueError, match="couldn't parse") as caught:
        parse_reference(name)
    assert time.monotonic() - begun < 1
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("a", "Always"), ("a:latest", "Always"), ("a:1", "IfNotPresent"), (f"a@{SHA256}", "IfNotPresent"), ("A!", "IfNotPresent"),
        (f"a:latest@{SHA256}", "Always"),
    ],
)  # fmt: skip
def test_the_default_pull_policy_is_kubernetes(name: str, policy: str) -> None:
    assert pull_policy(name, None) == policy
    assert pull_policy(name, "Never") == "Never"


MIRRORS = (
    RegistrySettings(registry="docker.io", mirror="mirror.example.org:5000/hub", insecure=True),
    RegistrySettings(registry="r.io", insecure=True),
)


@pytest.mark.parametrize(
    ("name", "source", "insecure"),
    [
        ("busybox:1.36", "docker://mirror.example.org:5000/hub/library/busybox:1.36", True),
        ("docker://busybox", "docker://mirror.example.org:5000/hub/library/busybox:latest", True),
        ("r.io/a:1", "docker://r.io/a:1", True),
        ("other.io/a:1", "docker://other.io/a:1", False),
        ("oras://other.io/a:1", "oras://other.io/a:1", False),
        (f"other.io/a:1@{SHA256}", f"docker://other.io/a@{SHA256}", False),
        ("/cvmfs/images/a b.sif", "/cvmfs/images/a b.sif", False),
        ("not a name", "", False),
        ("https://r.io/a", "", False),
    ],
)
def test_a_name_becomes_what_is_fetched_through_the_sites_mirrors(name: str, source: str, insecure: bool) -> None:
    image = resolve(name, None, MIRRORS)
    assert (image.name, image.source, image.insecure) == (name, source, insecure)
