import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_plugin.config import PodSettings
from slurm_plugin.contract import PodContent, VolumeFile
from slurm_plugin.errors import UnsupportedFieldError
from slurm_plugin.hosts.base import StagedEntry, StagedFile
from slurm_plugin.jobdir import JobDir
from slurm_plugin.plans import make_plan
from slurm_plugin.pod import Pod
from slurm_plugin.runner.plan import EnvEntry, Plan, env_from_json, plan_from_json
from slurm_plugin.staging import check_path, content_version, job_directory, volume_files, volume_links

from .manifests import REALISTIC, container, make_pod

FILES = (VolumeFile("a", b"1", 0o644), VolumeFile("dir/b", b"\0\xff", 0o400), VolumeFile("dir/c/d", b"", 0o600))
NO_FILES: tuple[VolumeFile, ...] = ()


def plan_of(pod: Pod) -> Plan:
    return make_plan(pod, PodSettings(), images="/images", places={})


def materialise(directory: Path, entries: tuple[StagedEntry, ...]) -> JobDir:
    """Make a staged directory for real, as a Host does."""
    for entry in entries:
        path = directory / entry.path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if isinstance(entry, StagedFile):
            with path.open("xb") as file:
                file.write(entry.data)
            path.chmod(entry.mode)
        else:
            path.symlink_to(entry.target)
    return JobDir(str(directory))


def mode(path: str | Path) -> int:
    return Path(path).stat().st_mode & 0o7777


def test_a_job_directory_holds_what_the_runner_reads(tmp_path: Path) -> None:
    plan = plan_of(Pod.model_validate(REALISTIC))
    env = (EnvEntry("A", "ü\n$(x)\"'\udcff", expand=True, node_field=""),)
    content = PodContent(env={"server": env}, volumes={"config": FILES})
    directory = materialise(tmp_path, job_directory(plan, "#!/bin/bash\n", content))

    assert plan_from_json(json.loads(Path(directory.plan).read_text(encoding="utf-8"))) == plan
    assert Path(directory.script).read_text(encoding="utf-8") == "#!/bin/bash\n"
    assert env_from_json(json.loads(Path(directory.env("server")).read_text(encoding="utf-8"))) == env
    assert env_from_json(json.loads(Path(directory.env("setup")).read_text(encoding="utf-8"))) == ()
    assert [mode(path) for path in (directory.plan, directory.script, directory.env("server"))] == [0o600, 0o700, 0o600]
    assert not Path(directory.job_id).exists()
    assert not Path(directory.claim).exists()


def test_a_volume_has_the_layout_of_the_atomic_writer(tmp_path: Path) -> None:
    content = PodContent(volumes={"config": FILES})
    directory = materialise(tmp_path, job_directory(plan_of(make_pod()), "", content))
    volume = Path(directory.volume("config"))
    version = content_version(FILES)
    assert sorted(path.name for path in volume.iterdir()) == sorted([version, "..data", "a", "dir"])
    assert (volume / "..data").readlink() == Path(version)
    assert (volume / "a").readlink() == Path("..data/a")
    assert [(volume / file.path).read_bytes() for file in FILES] == [b"1", b"\0\xff", b""]
    assert [mode(volume / file.path) for file in FILES] == [0o644, 0o400, 0o600]


def test_swapping_one_link_changes_all_files_of_a_volume_together(tmp_path: Path) -> None:
    content = PodContent(volumes={"config": FILES})
    volume = Path(materialise(tmp_path, job_directory(plan_of(make_pod()), "", content)).volume("config"))
    new = (VolumeFile("a", b"2", 0o644), VolumeFile("dir/b", b"3", 0o644))
    materialise(volume / content_version(new), volume_files("config", new))
    (volume / "..data").unlink()
    (volume / "..data").symlink_to(content_version(new))
    assert {link.path: link.target for link in volume_links(new)} == {"a": "..data/a", "dir": "..data/dir"}
    assert ((volume / "a").read_bytes(), (volume / "dir/b").read_bytes()) == (b"2", b"3")
    assert not (volume / "dir/c").exists()


def test_a_volume_without_files_is_there_and_empty(tmp_path: Path) -> None:
    directory = materialise(tmp_path, job_directory(plan_of(make_pod()), "", PodContent(volumes={"v": NO_FILES})))
    assert [path.name for path in Path(directory.volume("v")).iterdir()] == ["..data"]


def test_a_secret_is_in_its_own_file_only() -> None:
    env = {"main": (EnvEntry("PASSWORD", "hunter2", expand=False, node_field=""),)}
    entries = job_directory(plan_of(make_pod()), "script", PodContent(env=env))
    holders = [entry.path for entry in entries if isinstance(entry, StagedFile) and b"hunter2" in entry.data]
    assert holders == ["env/main.json"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../x",
        "a/../b",
        "a/..",
        ".",
        "./a",
        "a//b",
        "a/",
        "..data",
        "..x/y",
        "...",
        "a\0b",
    ],
)
def test_a_path_that_leaves_its_volume_is_refused(path: str) -> None:
    with pytest.raises(UnsupportedFieldError, match=r"^spec\.volumes\[name=v\]"):
        job_directory(plan_of(make_pod()), "", PodContent(volumes={"v": (VolumeFile(path, b"", 0o600),)}))


@pytest.mark.parametrize("path", ["a", ".hidden", "a/..b", "a b", "a\nb", "ü", "-rf", "a/b/c"])
def test_a_path_inside_its_volume_is_accepted(path: str) -> None:
    assert check_path(path, "v") == path


@pytest.mark.parametrize("name", ["", ".", "..", "../run", "/etc", "a/b", "a\n", "A", "-a", "a.b"])
def test_a_volume_or_container_with_a_name_of_its_own_making_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedFieldError, match=r"^spec\.volumes"):
        job_directory(plan_of(make_pod()), "", PodContent(volumes={name: FILES}))
    with pytest.raises(UnsupportedFieldError, match=r"^spec\.containers"):
        job_directory(plan_of(make_pod(container(name))), "", PodContent())


VOLUME_FILES = st.lists(
    st.builds(VolumeFile, st.sampled_from(["a", "b", "ab", "a/b"]), st.binary(max_size=3), st.sampled_from([0o644, 0o600])),
    max_size=3, unique_by=lambda file: file.path,
)  # fmt: skip


@given(VOLUME_FILES, VOLUME_FILES)
def test_a_version_names_exactly_its_content(first: list[VolumeFile], second: list[VolumeFile]) -> None:
    same = sorted(first, key=lambda f: f.path) == sorted(second, key=lambda f: f.path)
    assert (content_version(first) == content_version(second)) == same
    assert content_version(first) == content_version(first[::-1])
    assert content_version(first).startswith("..")
