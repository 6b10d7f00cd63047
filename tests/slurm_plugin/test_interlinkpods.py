"""interLink's annotations that are fields here: what they mean, and that the site's rules count as for any pod."""

from typing import Any

import pytest

from slurm_plugin.config import PodSettings
from slurm_plugin.editing import edited, wanted
from slurm_plugin.errors import InvalidAnnotationError, PolicyError, UnsupportedFieldError
from slurm_plugin.interlinkpods import Bind, as_meant, binds
from slurm_plugin.pod import Pod
from slurm_plugin.runner.plan import Plan, edition_of
from slurm_plugin.translate import translate

from .manifests import container, make_pod, make_site

ROOT, MOUNTS = "slurm-job.vk.io/image-root", "slurm-job.vk.io/singularity-mounts"
INIT = {"name": "first", "image": "/sif/first.sif"}


def pod(**annotations: str) -> Pod:
    named = {f"slurm-job.vk.io/{name.replace('_', '-')}": value for name, value in annotations.items()}
    return make_pod(container(name="main", image="busybox:1"), annotations=named, initContainers=[INIT])


def plan(made: Pod, **settings: Any) -> Plan:
    return translate(made, make_site(pods={"image_paths": ["/sif", "/cvmfs"]} | settings)).plan


def test_the_root_is_put_before_each_image_that_is_no_path() -> None:
    images = {each.name: each.image.name for each in plan(pod(image_root="/cvmfs/unpacked/docker.io/")).containers}
    assert images == {"first": "/sif/first.sif", "main": "/cvmfs/unpacked/docker.io/busybox:1"}
    (main,) = [each for each in plan(pod(image_root="docker://mine.example/")).containers if each.name == "main"]
    assert main.image.source == "docker://mine.example/busybox:1"


def test_a_root_leads_nowhere_that_an_image_may_not_lie() -> None:
    with pytest.raises(PolicyError, match="/home/bob/busybox:1"):
        plan(pod(image_root="/home/bob/"))
    with pytest.raises(UnsupportedFieldError):
        plan(pod(image_root="/cvmfs/../home/"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("--bind /a:/b:ro,/c", (Bind("/a", "/b", True), Bind("/c", "/c", False))),
        ("-B /a -B /b:/x:rw", (Bind("/a", "/a", False), Bind("/b", "/x", False))),
        ("--bind=/a", (Bind("/a", "/a", False),)),
        ("/a:/b", (Bind("/a", "/b", False),)),
        ("", ()),
    ],
)
def test_mounts_are_read_in_each_way_that_they_are_written(value: str, expected: tuple[Bind, ...]) -> None:
    assert binds({MOUNTS: value}) == expected


@pytest.mark.parametrize("value", ["a:/b", "/a:b", "/a:/b:suid", "--overlay /a", "'/a", "$HOME:/h"])
def test_what_is_no_mount_is_refused_by_the_annotations_path(value: str) -> None:
    with pytest.raises(InvalidAnnotationError) as caught:
        plan(pod(singularity_mounts=value), host_paths=["/"])
    assert caught.value.field == f"metadata.annotations[{MOUNTS}]"


def test_mounts_are_host_paths_in_every_container_where_the_site_allows_them() -> None:
    made = plan(pod(singularity_mounts="--bind /data/sets:/in:ro,/data/out"), host_paths=["/data"])
    for each in made.containers:
        assert [(mount.mount_path, mount.read_only) for mount in each.mounts] == [("/in", True), ("/data/out", False)]
    with pytest.raises(PolicyError, match="/data/sets is not below a path that the site allows") as caught:
        plan(pod(singularity_mounts="/data/sets"), host_paths=["/other"])
    assert caught.value.field == f"metadata.annotations[{MOUNTS}]"


def test_a_pod_with_such_images_is_not_taken_for_one_that_was_edited() -> None:
    before = pod(image_root="docker://mine.example/")
    made = plan(before)
    assert edition_of(made) == wanted(before)
    assert edited(made, before, PodSettings()) == made


def test_a_pod_without_them_is_itself() -> None:
    assert as_meant(made := pod()) is made
