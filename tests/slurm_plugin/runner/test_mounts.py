"""What a container sees of the pod's volumes."""

import os
from pathlib import Path

import pytest

from slurm_plugin.runner import plan
from slurm_plugin.runner.limits import quantity
from slurm_plugin.runner.mounts import Sources, binds
from slurm_plugin.runner.runtimes import Bind
from slurm_plugin.runner.volumes import VolumeError, usage

from .conftest import MakeJob
from .jobs import container, pod, shell

ENVIRONMENT = {"NAME": "web", "UP": "../x", "ROOT": "/etc", "EMPTY": ""}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "volume"
    path.mkdir()
    return path


def mounted(volume: Path, sub_path: str, *, expression: bool = False, kind: str = plan.EMPTY_DIR) -> Bind:
    volumes = (plan.Volume("v", kind, "", "", 0),)
    mounts = (plan.Mount("v", "/data", sub_path, read_only=False, sub_path_expr=expression),)
    sources = Sources(volumes, {"v": str(volume)}, str(volume.parent / "copies"))
    (bind,) = binds(container("a", mounts=mounts), sources, ENVIRONMENT)
    return bind


def test_sub_path_is_made_where_it_is_missing(volume: Path) -> None:
    assert mounted(volume, "a/b").source == str(volume / "a" / "b")
    assert (volume / "a" / "b").is_dir()
    found = (volume / "a" / "b").stat()
    assert mounted(volume, "a/b") == Bind(str(volume / "a" / "b"), "/data", False, (found.st_dev, found.st_ino))


def test_sub_path_expr_is_expanded_with_the_containers_environment(volume: Path) -> None:
    assert mounted(volume, "logs/$(NAME)-$$(NAME)", expression=True).source == str(volume / "logs" / "web-$(NAME)")


@pytest.mark.parametrize("name", ["MISSING", "EMPTY"])
def test_sub_path_expr_with_an_undefined_variable_is_an_error(volume: Path, name: str) -> None:
    with pytest.raises(VolumeError, match=f"missing value for {name}"):
        mounted(volume, f"a/$({name})", expression=True)


@pytest.mark.parametrize("text", ["$(UP)", "a/$(UP)", "$(ROOT)"])
def test_sub_path_expr_does_not_lead_out_of_its_volume(volume: Path, text: str) -> None:
    with pytest.raises(VolumeError):
        mounted(volume, text, expression=True)


@pytest.mark.parametrize("sub_path", ["link", "link/new", "inner/link2/x"])
def test_sub_path_does_not_follow_a_link_out_of_its_volume(volume: Path, sub_path: str) -> None:
    (volume / "link").symlink_to("/etc")
    (volume / "inner").mkdir()
    (volume / "inner" / "link2").symlink_to("../..")
    with pytest.raises(VolumeError, match="leads out of the volume"):
        mounted(volume, sub_path)
    assert not (volume.parent / "x").exists()


def test_sub_path_of_content_is_a_copy_with_its_mode(volume: Path) -> None:
    (volume / "..1").mkdir()
    (volume / "..1" / "key").write_text("old")
    (volume / "..1" / "key").chmod(0o640)
    (volume / "..data").symlink_to("..1")
    (volume / "key").symlink_to("..data/key")
    bind = mounted(volume, "key", kind=plan.CONTENT)
    (volume / "..1" / "key").write_text("new")
    assert Path(bind.source).read_text() == "old"
    assert Path(bind.source).stat().st_mode & 0o777 == 0o640
    assert bind.read_only
    with pytest.raises(VolumeError, match="is not in volume"):
        mounted(volume, "other", kind=plan.CONTENT)


def test_usage_counts_blocks_and_a_file_with_two_names_once(volume: Path) -> None:
    (volume / "d").mkdir()
    (volume / "d" / "file").write_bytes(os.urandom(1 << 20))
    (volume / "again").hardlink_to(volume / "d" / "file")
    assert 1 << 20 <= usage(str(volume)) < (1 << 20) + (64 << 10)


@pytest.mark.parametrize(
    ("size", "text"), [(10 << 20, "10Mi"), (1 << 40, "1Ti"), (1536, "1536"), (1 << 10, "1Ki"), (5, "5")]
)
def test_a_limit_is_written_as_kubernetes_would(size: int, text: str) -> None:
    assert quantity(size) == text


def test_pod_whose_empty_dir_outgrows_its_limit_is_evicted(job: MakeJob, tmp_path: Path) -> None:
    volumes = (plan.Volume("v", plan.EMPTY_DIR, "", "", 1 << 20),)
    place = tmp_path / "pods" / "scratch" / "slurmlet-6d0f1d5e-42.0" / "volumes" / "v" / "big"
    j = job(pod(shell("a", f"head -c 3000000 /dev/zero > {place}; exec sleep 60"), volumes=volumes))
    assert j.run() != 0
    state = j.state()
    assert state.reason == "Evicted"
    assert state.message == 'Usage of EmptyDir volume "v" exceeds the limit "1Mi". '


def test_host_paths_are_made_for_others_to_read_whatever_the_runners_umask(job: MakeJob, tmp_path: Path) -> None:
    made = {"DirectoryOrCreate": tmp_path / "new" / "deep", "FileOrCreate": tmp_path / "file"}
    volumes = tuple(plan.Volume(f"v{len(kind)}", plan.HOST_PATH, str(path), kind, 0) for kind, path in made.items())
    before = os.umask(0o077)
    try:
        assert job(pod(shell("a", "true"), volumes=volumes)).run() == 0
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "new", *made.values())]
    assert modes == [0o755, 0o755, 0o644]


@pytest.mark.parametrize("kind", [plan.CLAIM, plan.HOST_PATH])
def test_links_of_a_volume_do_not_lead_to_other_pods_files(job: MakeJob, tmp_path: Path, kind: str) -> None:
    (tmp_path / "innocent").symlink_to(tmp_path / "pods")
    j = job(pod(shell("a", "true"), volumes=(plan.Volume("v", kind, str(tmp_path / "innocent"), "", 0),)))
    process = j.start()
    j.wait_until(lambda j: "FailedMount" in j.reasons())
    process.terminate()
    process.communicate(timeout=30)
    (message,) = {event.message for event in j.state().events if event.reason == "FailedMount"}
    assert message.endswith("leads to the files of other pods")
