"""The runner's pure parts, by table."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_plugin.runner.backoff import BackOff, Timings
from slurm_plugin.runner.expand import expand
from slurm_plugin.runner.image import ImageConfig, ReadyImage, command_line
from slurm_plugin.runner.plan import Runtime
from slurm_plugin.runner.reference import Reference, parse_source
from slurm_plugin.runner.runtimes import Bind, InexpressibleError, Setting, apptainer
from slurm_plugin.runner.termination import (
    cut_short,
    message_limit,
    never_started,
    read_message,
    read_status,
)

from .jobs import container


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("$(A)", "1"),
        ("x$(A)y$(B)z", "x1y2z"),
        ("$(MISSING)", "$(MISSING)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$(A", "$(A"),
        ("$A", "$A"),
        ("$", "$"),
        ("$$", "$"),
        ("$(A)$", "1$"),
        ("$()", "$()"),
        ("$(EMPTY)", ""),
        ("$($(A))", "$($(A))"),
    ],
)
def test_expansion_is_kubernetes_own(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2", "EMPTY": ""}) == expected


IMAGE = ImageConfig(("/ep", "e1"), ("c1", "c2"), (), "", "")


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        (None, None, ("/ep", "e1", "c1", "c2")),
        (None, ("a",), ("/ep", "e1", "a")),
        (("/cmd",), None, ("/cmd",)),
        (("/cmd", "x"), ("a",), ("/cmd", "x", "a")),
        ((), (), ("/ep", "e1", "c1", "c2")),
        (None, ("$(V)",), ("/ep", "e1", "value")),
        (("$(V)",), None, ("value",)),
    ],
)
def test_command_line_follows_kubernetes_table(command: Any, args: Any, expected: tuple[str, ...]) -> None:
    assert command_line(command, args, IMAGE, {"V": "value"}) == expected


def test_back_off_doubles_to_its_limit_and_is_forgotten() -> None:
    back_off = BackOff(Timings())
    assert [back_off.next(now) for now in (0, 1, 12, 40, 90, 200, 400, 800)] == [0, 10, 20, 40, 80, 160, 300, 300]
    assert back_off.next(2000) == 0, "ten quiet minutes"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("docker://docker.io/library/busybox:1.36", Reference("docker", "docker.io", "library/busybox", "1.36")),
        ("docker://127.0.0.1:5000/a/b:t", Reference("docker", "127.0.0.1:5000", "a/b", "t")),
        ("oras://r.io/x", Reference("oras", "r.io", "x", "latest")),
        ("docker://r.io/x:t@sha256:" + 64 * "0", Reference("docker", "r.io", "x", "sha256:" + 64 * "0")),
    ],
)
def test_image_sources_are_split(source: str, expected: Reference) -> None:
    assert parse_source(source) == expected


def test_termination_messages_share_12_kib() -> None:
    assert [message_limit(count) for count in (1, 3, 4, 12)] == [4096, 4096, 3072, 1024]


def test_a_termination_message_file_that_became_something_else_says_nothing_and_stays_open_for_nobody(
    tmp_path: Path,
) -> None:
    (tmp_path / "secret").write_text("of the node")
    (tmp_path / "link").symlink_to("secret")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "words").write_bytes(b"last words")
    writer = os.open(tmp_path / "pipe", os.O_RDWR)
    before = os.listdir("/proc/self/fd")
    names = ("words", "link", "directory", "pipe", "nothing")
    found = {name: read_message(str(tmp_path / name), 4) for name in names}
    assert found == {"words": "last", "link": "", "directory": "", "pipe": "", "nothing": ""}
    assert os.listdir("/proc/self/fd") == before
    os.close(writer)


def test_wait_statuses_are_read_as_shells_do() -> None:
    assert read_status(7 << 8) == (7, 0)
    assert read_status(9) == (137, 9)


@pytest.mark.parametrize(
    ("code", "errors", "entered", "expected"),
    [
        (
            255,
            'FATAL:   "foo": executable file not found in $PATH\n',
            True,
            '"foo": executable file not found in $PATH',
        ),
        (255, "FATAL:   stat /foo: no such file or directory", True, "stat /foo: no such file or directory"),
        (255, "FATAL:   mount source /x doesn't exist", False, "mount source /x doesn't exist"),
        (255, "FATAL:   what the program itself says", True, ""),
        (255, "", False, "the runtime ended with exit code 255"),
        (0, "", False, "the runtime ended with exit code 0"),
        (1, 'FATAL:   "foo": executable file not found in $PATH', True, ""),
    ],
)
def test_a_command_that_never_started_is_told_from_one_that_exits_255(
    code: int, errors: str, entered: bool, expected: str
) -> None:
    found = never_started(code, errors, entered=entered)
    assert found == ("failed to start the container: " + expected if expected else "")


@pytest.mark.parametrize(
    ("code", "entered", "executed", "expected"),
    [
        (2, False, False, True),
        (143, False, False, True),
        (0, False, False, False),
        (2, True, False, True),
        (255, True, False, True),
        (3, True, False, False),
        (0, True, False, False),
        (146, True, False, True),
        (146, True, True, True),
        (139, True, True, True),
        (135, True, False, True),
        (2, True, True, False),
        (143, True, True, False),
    ],
)
def test_an_exit_code_of_apptainers_own_is_told_from_the_commands(
    code: int, entered: bool, executed: bool, expected: bool
) -> None:
    assert cut_short(code, entered=entered, executed=executed) == expected


# Apptainer's command line


def setting(**changes: Any) -> Setting:
    return Setting(
        container=container("a", "true"),
        runtime=Runtime("apptainer", "/usr/bin/apptainer", ()),
        image=ReadyImage("/images/x.sif", "x@sha256:0", IMAGE),
        command=("true",),
        arguments=(),
        working_dir="",
        environment={},
        binds=(),
        hostname="web-0",
        scratch="/scratch/run",
        host={"PATH": "/usr/bin", "HOME": "/home/alice", "LD_PRELOAD": "/host.so", "SECRET": "x"},
    )._replace(**changes)


def options(argv: tuple[str, ...], name: str) -> list[str]:
    return [argv[index + 1] for index, word in enumerate(argv) if word == name]


def test_apptainer_is_contained_and_evaluates_nothing() -> None:
    argv = apptainer.launch(setting()).argv
    assert argv[:3] == ("/usr/bin/apptainer", "--silent", "exec")
    assert {"--containall", "--no-eval", "--writable-tmpfs"} < set(argv)
    assert options(argv, "--hostname") == ["web-0"]
    assert options(argv, "--pwd") == ["/"]
    assert argv[-2:] == ("/images/x.sif", "true")


def exported(environment: dict[str, str]) -> dict[str, str]:
    """What a shell has of these variables after the script, the gate's lines apart."""
    script = apptainer.script(setting(environment=environment))
    lines = [line for line in script.split("\n") if line.startswith(("export ", "unset LD"))]
    argv = ["/bin/bash", "--norc", "-c", "\n".join([*lines, "exec /usr/bin/env -0"])]
    output = subprocess.run(argv, env={"LC_ALL": "C.UTF-8"}, capture_output=True, check=True).stdout
    values = dict(entry.split("=", 1) for entry in os.fsdecode(output).split("\0") if entry)
    return {name: values[name] for name in environment}


def test_hostile_environment_never_acts_on_the_starter() -> None:
    hostile = {
        "LD_AUDIT": "/evil.so",
        "APPTAINER_BIND": "/etc",
        "PATH": "/x",
        "Q": "$(id)`id`'\"\\\n\r\n",
        "HOME": "/h",
    }
    launch = apptainer.launch(setting(environment=hostile))
    own = {"APPTAINER_TMPDIR": setting().scratch, "SINGULARITY_TMPDIR": setting().scratch}
    assert launch.env == own | {"PATH": "/usr/bin", "HOME": "/home/alice"}
    assert not any("$(id)" in word for word in launch.argv)
    assert exported({"Q": hostile["Q"], "HOME": "/h"}) == {"Q": hostile["Q"], "HOME": "/h"}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=20, max_size=40))
@settings(max_examples=20, deadline=None)
def test_any_value_survives_the_script(values: list[str]) -> None:
    variables = {f"V{number}": value for number, value in enumerate(values)}
    assert exported(variables) == variables
    assert apptainer.script(setting(environment=variables)).isascii()


def test_bytes_that_are_no_text_survive_the_script() -> None:
    variables = {"A": os.fsdecode(b"\xff\xfe4a k\xc3\xa9y\x80"), "B": os.fsdecode(bytes(range(1, 256)))}
    assert exported(variables) == variables
    assert apptainer.script(setting(environment=variables)).isascii()


def test_names_that_no_shell_takes_pass_as_they_are() -> None:
    launch = apptainer.launch(setting(environment={"spring.url": "x"}))
    assert launch.env["spring.url"] == "x"
    assert "--containall" not in launch.argv
    assert {"--contain", "--pid", "--ipc"} < set(launch.argv)


@pytest.mark.parametrize("name", ["UID", "GID", "BASH_FUNC_x%%"])
def test_names_that_apptainer_can_not_set_are_refused(name: str) -> None:
    with pytest.raises(InexpressibleError, match=name):
        apptainer.launch(setting(environment={name: "1"}))


def test_home_is_set_inside_by_a_quoted_script() -> None:
    script = apptainer.script(setting(environment={"HOME": "/my ho'me"}))
    assert "export HOME=" + shlex.quote("/my ho'me") in script.splitlines()


@pytest.mark.parametrize(
    ("bind", "expected"),
    [
        (Bind("/a", "/b", False), ("--bind", "/a:/b")),
        (Bind("/a", "/b", True), ("--bind", "/a:/b:ro")),
        (Bind("/a:b", "/c", True), ("--mount", "type=bind,source=/a:b,destination=/c,ro")),
        (Bind('/a,"b', "/c d", False), ("--mount", 'type=bind,"source=/a,""b",destination=/c d')),
    ],
)
def test_binds_are_quoted_as_apptainer_reads_them(bind: Bind, expected: tuple[str, ...]) -> None:
    assert apptainer.bind_options(bind) == expected


def test_paths_with_control_characters_are_refused() -> None:
    with pytest.raises(InexpressibleError, match="control character"):
        apptainer.bind_options(Bind("/a\nb", "/c", False))


def test_image_that_says_nothing_runs_its_own_script() -> None:
    image = ReadyImage("/images/x.sif", "", None)
    argv = apptainer.launch(setting(image=image, command=(), arguments=("one",))).argv
    assert argv[2] == "run"
    assert argv[-2:] == ("/images/x.sif", "one")


def test_read_only_root_and_gpus_are_options() -> None:
    argv = apptainer.launch(setting(container=container("a", "true", read_only_root=True, gpu="nvidia"))).argv
    assert "--writable-tmpfs" not in argv
    assert "--nv" in argv
