"""What is asked of an Apptainer that is installed setuid root."""

import os
from pathlib import Path

import pytest

from slurm_plugin.runner import setuid
from slurm_plugin.runner.plan import Runtime
from slurm_plugin.runner.runtimes import apptainer
from slurm_plugin.runner.setuid import Installation, Node

CONFIGURATION = "/etc/apptainer/apptainer.conf"
FOUND = Installation("apptainer", "/usr/libexec/apptainer/bin/starter-suid", CONFIGURATION, {"allow setuid": "yes"})
SINGULARITY = Installation(
    "singularity",
    "/usr/local/libexec/singularity/bin/starter-suid",
    "/usr/local/etc/singularity/singularity.conf",
    {"allow setuid": "yes", "tmp sandbox": "yes"},
)
NODE = Node({"user/max_user_namespaces": "63000"}, profiled=False, fuse=True, programs=("squashfuse",), kernel=(5, 14))
AN_OLD_KERNEL = NODE._replace(kernel=(4, 18))
APPARMOR = {"kernel/apparmor_restrict_unprivileged_userns": "1"}


def options(*given: str, found: Installation = FOUND, node: Node = NODE) -> tuple[str, ...]:
    settled = setuid.decide(Runtime("apptainer", "", given), found, node)
    assert not settled.barred
    return settled.runtime.options


def barred(*given: str, found: Installation = FOUND, node: Node = NODE) -> str:
    settled = setuid.decide(Runtime("apptainer", "", given), found, node)
    assert settled.runtime.options == given, "it runs by setuid, as before"
    begin = "the container can't be entered: a setuid installation made it without a user namespace, for "
    assert settled.barred.startswith(begin)
    assert "\n" not in settled.barred
    return settled.barred.removeprefix(begin)


def test_a_setuid_installation_is_asked_for_a_user_namespace_where_the_node_can_make_one() -> None:
    assert options() == ("--userns",)
    assert options("--bind", "/data") == ("--userns", "--bind", "/data")
    assert options("-B/usr/fun:/x") == ("--userns", "-B/usr/fun:/x")


@pytest.mark.parametrize("given", ["--userns", "--userns=true", "-u", "-eu", "--fakeroot", "-f", "--ignore-userns"])
def test_the_sites_own_word_wins(given: str) -> None:
    assert options(given) == (given,)
    assert options(given, node=NODE._replace(fuse=False)) == (given,)


@pytest.mark.parametrize("given", ["--userns=false", "--userns=0"])
def test_a_site_that_wants_none_is_told_that_nobody_enters(given: str) -> None:
    assert barred(given) == f"pods.runtime.options has {given}"
    assert options(given, "--userns") == (given, "--userns"), "the last one counts"


def test_an_installation_whose_setuid_half_is_switched_off_needs_no_asking() -> None:
    assert options(found=FOUND._replace(directives={"allow setuid": "no"})) == ()


@pytest.mark.parametrize(
    ("found", "node", "words"),
    [
        (FOUND._replace(directives={"allow user ns": "no"}), NODE, f"{CONFIGURATION} has allow user ns = no"),
        (FOUND, NODE._replace(sysctls={"user/max_user_namespaces": "0"}), "user.max_user_namespaces is 0 on the node"),
        (
            FOUND,
            NODE._replace(sysctls={"kernel/unprivileged_userns_clone": "0"}),
            "kernel.unprivileged_userns_clone is 0 on the node",
        ),
        (
            FOUND,
            NODE._replace(sysctls=APPARMOR),
            "kernel.apparmor_restrict_unprivileged_userns is 1 on the node, and no /etc/apparmor.d/apptainer allows userns",
        ),
        (FOUND, NODE._replace(fuse=False), "/dev/fuse is not open to users on the node"),
        (FOUND, NODE._replace(programs=()), "squashfuse_ll or squashfuse is not installed on the node"),
        (FOUND, AN_OLD_KERNEL, "fuse-overlayfs is not installed on the node"),
        (SINGULARITY, NODE, "fusermount3 or fusermount is not installed on the node"),
        (SINGULARITY._replace(directives={}), NODE, "SingularityCE before 4.1 mounts no image in one"),
    ],
)
def test_what_the_node_lacks_is_said_in_words_for_its_administrator(
    found: Installation, node: Node, words: str
) -> None:
    assert barred(found=found, node=node) == words


@pytest.mark.parametrize(
    ("found", "node"),
    [
        (FOUND, NODE._replace(sysctls=APPARMOR, profiled=True)),
        (FOUND, NODE._replace(sysctls={})),
        (FOUND, NODE._replace(programs=("squashfuse_ll",))),
        (FOUND, AN_OLD_KERNEL._replace(programs=("squashfuse", "fuse-overlayfs"))),
        (SINGULARITY, NODE._replace(programs=("squashfuse", "fusermount"))),
        (SINGULARITY._replace(directives={"sif fuse": "yes"}), NODE._replace(programs=("squashfuse", "fusermount3"))),
    ],
)
def test_what_the_node_has_suffices(found: Installation, node: Node) -> None:
    assert options(found=found, node=node) == ("--userns",)


def test_directives_are_read_as_apptainer_reads_them() -> None:
    text = "# allow setuid = no\nallow setuid = yes\n  allow user ns=no \nimage driver =\nbind path = /etc/hosts\n"
    expected = {"allow setuid": "yes", "allow user ns": "no", "image driver": "", "bind path": "/etc/hosts"}
    assert setuid.directives(text) == expected


def an_installation(prefix: Path, *, mode: int, configured: bool = True) -> Path:
    starter = prefix / "libexec/apptainer/bin/starter-suid"
    program = prefix / "bin/apptainer"
    for path in (starter, program):
        path.parent.mkdir(parents=True)
        path.write_text("")
    starter.chmod(mode)
    if configured:
        configuration = prefix / "etc/apptainer/apptainer.conf"
        configuration.parent.mkdir(parents=True)
        configuration.write_text("allow setuid = yes\nallow user ns = no\n")
    return program


@pytest.mark.skipif(os.getuid() != 0, reason="makes a file that is setuid root")
def test_a_setuid_installation_is_found_by_its_program(tmp_path: Path) -> None:
    program = an_installation(tmp_path / "with", mode=0o4755)
    without = an_installation(tmp_path / "without", mode=0o755)
    elsewhere = an_installation(tmp_path / "elsewhere", mode=0o4755, configured=False)
    link, wrapper = tmp_path / "singularity", tmp_path / "apptainer"
    link.symlink_to(program)
    wrapper.write_text("#!/bin/sh\n")
    for path in (program, link):
        found = setuid.installation(str(path))
        assert found is not None
        assert found.name == "apptainer"
        assert found.configuration == str(tmp_path / "with/etc/apptainer/apptainer.conf")
        assert found.directives == {"allow setuid": "yes", "allow user ns": "no"}
    for path in (without, elsewhere, wrapper, tmp_path / "nosuch"):
        assert setuid.installation(str(path)) is None, path


def test_what_can_not_be_found_out_changes_nothing(tmp_path: Path) -> None:
    for executable in ("", "nosuch", str(tmp_path / "apptainer")):
        runtime = Runtime("apptainer", executable, ("--bind", "/data"))
        assert apptainer.settle(runtime, {"PATH": str(tmp_path)}) == (runtime, "")


def test_root_needs_no_setuid_program(tmp_path: Path) -> None:
    if os.getuid() == 0:
        runtime = Runtime("apptainer", str(an_installation(tmp_path, mode=0o4755)), ())
        assert apptainer.settle(runtime, {}) == (runtime, "")
