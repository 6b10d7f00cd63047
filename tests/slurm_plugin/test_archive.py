"""The archive: the same bytes from the same sources, and a program on every Python that it promises to run on."""

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from slurm_plugin import archive
from slurm_plugin.hosts.local import LocalHost

OLD_AND_NEW = [f"python3.{minor}" for minor in range(6, 16)]


def test_the_same_sources_make_the_same_archive() -> None:
    assert archive.build.__wrapped__() == archive.build()


def test_it_holds_the_two_programs_and_nothing_else() -> None:
    names = zipfile.ZipFile(io.BytesIO(archive.build().data)).namelist()
    assert names == sorted(names)
    for name in (
        "__main__.py",
        "slurm_plugin/hostagent/server.py",
        "slurm_plugin/runner/plan.py",
        "slurm_plugin/jobdir.py",
    ):
        assert name in names
    for name in names:
        assert name in {"__main__.py", "slurm_plugin/__init__.py", "slurm_plugin/jobdir.py"} or name.startswith(
            ("slurm_plugin/runner/", "slurm_plugin/hostagent/")
        )


def test_its_agent_speaks_and_ends_with_its_input(tmp_path: Path) -> None:
    path = tmp_path / "slurmlet.pyz"
    path.write_bytes(archive.build().data)
    argv = [sys.executable, "-I", "-S", "-B", str(path), "agent"]
    done = subprocess.run(argv, input=b"", capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\0slurmlet host agent 1\n", b"")


def test_an_agent_spoken_to_in_another_tongue_says_so(tmp_path: Path) -> None:
    path = tmp_path / "slurmlet.pyz"
    path.write_bytes(archive.build().data)
    argv = [sys.executable, "-I", "-S", "-B", str(path), "agent"]
    done = subprocess.run(argv, input=b"GET / HTTP/1.1\r\n\r\n", capture_output=True, timeout=30, check=False)
    assert done.returncode == 65
    assert b"frame header" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("python", OLD_AND_NEW)
def test_its_bytecode_is_kept_beside_it_and_used_at_the_next_start(python: str, tmp_path: Path) -> None:
    if (program := found(python)) is None:
        pytest.skip(f"no {python} here")
    path = tmp_path / "slurmlet.pyz"
    path.write_bytes(archive.build().data)
    argv = [program, "-I", "-S", "-B", str(path), "watch", str(tmp_path / "root")]

    def start() -> tuple[int, bytes]:
        done = subprocess.run(argv, input=b"", capture_output=True, timeout=30, check=False)
        return done.returncode, done.stdout

    code, output = start()
    assert code == 0
    assert output.startswith(b'{"synced":true}\n')
    (kept,) = (file for file in tmp_path.iterdir() if file != path)
    assert kept.name.startswith(f"slurmlet.pyz.cpython-{python[6:].replace('.', '')}-")
    with zipfile.ZipFile(path) as whole:
        main = whole.read("__main__.py")
    with zipfile.ZipFile(path, "w") as hollow:
        hollow.writestr("__main__.py", main)
    code, output = start()
    assert code == 0
    assert output.startswith(b'{"synced":true}\n')


@pytest.mark.slow
@pytest.mark.parametrize("python", OLD_AND_NEW)
async def test_the_agent_runs_on_every_python_from_3_6_on(python: str, area: str) -> None:
    if (path := found(python)) is None:
        pytest.skip(f"no {python} here")
    host = LocalHost(python=path)
    assert (await host.run(["printf", "%s", "naïve\udcff"], timeout=60)).stdout == b"na\xc3\xafve\xff"
    path = f"{area}/ü"
    await host.write(path, b"x")
    assert await host.read(path) == b"x"
    async with host.process(["cat"]) as process:
        await process.write(b"x")
        await process.close_stdin()
        assert await process.read() == b"x"
        assert await process.wait() == 0
    await host.remove_tree(area)
    await host.close()


@pytest.fixture
def area(tmp_path: Path) -> str:
    return str(tmp_path.resolve())


def found(python: str) -> str | None:
    """Where such a Python is: on PATH, or among pyenv's; the stand-ins that pyenv puts on PATH may be for none."""
    places = [Path(directory) for directory in os.get_exec_path()]
    places += Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin")
    for place in places:
        path = place / python
        if (
            path.is_file()
            and subprocess.run([path, "-V"], capture_output=True, check=False, timeout=30).returncode == 0
        ):
            return str(path)
    return None
