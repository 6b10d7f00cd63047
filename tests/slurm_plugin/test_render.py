import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from slurm_plugin.errors import UnsupportedFieldError
from slurm_plugin.job import BatchJob, Gres, Placement
from slurm_plugin.pod import Pod
from slurm_plugin.render import render, sbatch_value
from slurm_plugin.translate import translate

from .manifests import DIGEST, make_site
from .sbatch_rules import arguments_of, words_of

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir())
ANYTHING = {"accounts": ["*"], "qos": ["*"], "reservations": ["*"], "raw_flags": True, "requeue": True}

JOB = BatchJob(
    name="default/web:1",
    directory="/home/alice/pods/1",
    archive="/home/alice/a.pyz",
    archive_digest=DIGEST,
    interpreters=("/usr/bin/python3",),
    cpus=2,
    memory_mib=None,
    tmp_mib=None,
    gres=(),
    time_limit_minutes=None,
    warning_seconds=120,
)


def golden(case: str) -> str:
    manifest = yaml.safe_load((GOLDEN / case / "pod.yaml").read_text(encoding="utf-8"))
    return render(translate(Pod.model_validate(manifest), make_site(policy=[ANYTHING])).job)


@pytest.mark.parametrize("case", CASES)
def test_the_script_of_a_pod_is_the_golden_one(case: str, update_golden: bool) -> None:
    path = GOLDEN / case / "job.sh"
    script = golden(case)
    if update_golden:
        path.write_text(script, encoding="utf-8")
    assert script.splitlines() == path.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("case", CASES)
def test_every_golden_script_is_bash(case: str) -> None:
    subprocess.run(["bash", "-n", str(GOLDEN / case / "job.sh")], check=True, timeout=60)
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, str(GOLDEN / case / "job.sh")], check=True, timeout=30)


# What the script does when it runs


SPY = """\
import json, os, sys
json.dump({"argv": sys.argv, "umask": os.umask(0), "environment": dict(os.environ), "flags": [
    sys.flags.isolated, sys.flags.no_site, sys.flags.dont_write_bytecode], "pid": os.getpid()}, sys.stdout)
sys.exit(7)
"""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A zipapp that says how it was started, in a directory whose name needs quoting."""
    path = tmp_path / 'it\'s $(id) "here"' / "runner.pyz"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("__main__.py", SPY)
    return path


def job_of(archive: Path, *interpreters: str) -> BatchJob:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return replace(JOB, archive=str(archive), archive_digest=digest, interpreters=interpreters or (sys.executable,))


def run(job: BatchJob) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash"],
        input=render(job),
        env={"PATH": os.environ["PATH"], "SLURM_EXPORT_ENV": "NONE", "SLURM_JOB_ID": "5"},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_the_script_becomes_the_runner(archive: Path) -> None:
    done = run(job_of(archive))
    assert (done.returncode, done.stderr) == (7, "")
    said = json.loads(done.stdout)
    assert said["argv"] == [str(archive), "run", "/home/alice/pods/1"]
    assert said["umask"] == 0o077
    assert said["flags"] == [1, 1, True]
    assert "SLURM_EXPORT_ENV" not in said["environment"]
    assert said["environment"]["SLURM_JOB_ID"] == "5"


def test_the_runner_has_the_shells_own_pid_so_that_signals_reach_it(archive: Path, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(render(job_of(archive)), encoding="utf-8")
    with subprocess.Popen(["bash", str(script)], stdout=subprocess.PIPE) as process:
        output, _ = process.communicate(timeout=30)
    assert json.loads(output)["pid"] == process.pid


def test_an_archive_that_was_changed_is_not_run(archive: Path) -> None:
    job = job_of(archive)
    with archive.open("ab") as file:
        file.write(b"#")
    done = run(job)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"slurmlet: {archive} was changed" in done.stderr


def test_the_next_interpreter_is_taken_when_one_is_missing_or_too_old(archive: Path, tmp_path: Path) -> None:
    old = tmp_path / "old python"
    old.write_text("#!/bin/sh\necho unknown option -I >&2\nexit 2\n", encoding="utf-8")
    old.chmod(0o700)
    done = run(job_of(archive, "/no/such/python", str(tmp_path), str(old), sys.executable))
    assert (done.returncode, done.stderr) == (7, "")


def test_no_interpreter_is_exit_127_with_the_reason(archive: Path) -> None:
    done = run(job_of(archive, "/no/such/python", "/nor/that $(one)"))
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr.startswith("slurmlet: no Python 3.6 or later on ")
    assert done.stderr.endswith(": tried /no/such/python /nor/that $(one)\n")


# What sbatch reads in it


def options(job: BatchJob) -> list[str]:
    return arguments_of(render(job))


def test_every_resource_and_placement_is_an_option() -> None:
    job = replace(
        JOB, memory_mib=5, tmp_mib=6, gres=(Gres("gpu", "a100", 2), Gres("fpga", "", 1)), time_limit_minutes=7,
        placement=Placement("p", "a", "q", "r", "c", "l", nice=0, exclusive=True, requeue=True),
    )  # fmt: skip
    assert options(job) == [
        "--nodes=1", "--ntasks=1", "--cpus-per-task=2", "--mem=5M", "--tmp=6M", "--gres=gpu:a100:2,fpga:1", "--time=7",
        "--partition=p", "--account=a", "--qos=q", "--reservation=r", "--constraint=c", "--licenses=l", "--nice=0", "--exclusive",
        "--job-name=default/web:1", "--chdir=/home/alice/pods/1", "--output=/home/alice/pods/1/job.log", "--open-mode=append",
        "--export=NONE", "--requeue", "--dependency=singleton", "--signal=B:USR1@120",
    ]  # fmt: skip


def test_what_is_not_asked_for_is_left_to_slurm() -> None:
    assert options(JOB)[:5] == [
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=2",
        "--job-name=default/web:1",
        "--chdir=/home/alice/pods/1",
    ]
    assert "--no-requeue" in options(JOB)


def test_file_name_patterns_in_the_directory_stand_for_themselves() -> None:
    assert "--output=/x/%%j/job.log" in options(replace(JOB, directory="/x/%j"))
    assert "--chdir=/x/%j" in options(replace(JOB, directory="/x/%j"))


@pytest.mark.parametrize(
    "flags", [("--comment",), ("--job-name=other",), ("-J",), ("--dependency=", "--requeue", "--export=ALL")]
)
def test_no_raw_flag_undoes_the_protocol(flags: tuple[str, ...]) -> None:
    words = options(replace(JOB, extra_arguments=flags))
    spared = words.index(flags[-1]) + 1
    # The first word after the flags may be taken for the last flag's value; what is ours begins behind it.
    assert words[spared] == "--open-mode=append"
    assert words[spared + 1 :] == options(JOB)


HOSTILE = st.text() | st.text(alphabet="\"'\\#$`%!*?~ \t;:=-jab\u00e9\u2028\U0001f600")


@given(HOSTILE)
@example("a\\b \"c\" 'd' #e $(f) `g` %j \\")
@example("")
def test_any_text_survives_sbatchs_reading_or_is_refused(text: str) -> None:
    try:
        quoted = sbatch_value(text)
    except ValueError:
        assert not text.isprintable()
        return
    assert words_of(f" --comment={quoted}") == [f"--comment={text}"]
    assert words_of(f" {quoted} --x") == [text, "--x"]
    assert "\n" not in quoted


@pytest.mark.parametrize("character", ["\n", "\r", "\0", "\t", "\x1b", "\x85", "\u2028", "\ud800"])
def test_what_no_line_can_carry_is_refused(character: str) -> None:
    with pytest.raises(ValueError, match="no #SBATCH line"):
        sbatch_value(f"a{character}b")


@pytest.mark.parametrize(
    ("job", "field"),
    [
        (replace(JOB, name="x\ny"), "sbatch --job-name"),
        (replace(JOB, directory="/x\n"), "sbatch --chdir"),
        (replace(JOB, placement=Placement(constraint="x\ny")), "sbatch --constraint"),
        (replace(JOB, extra_arguments=("--x\n",)), "raw sbatch flags"),
    ],
)
def test_a_job_that_no_script_can_carry_names_the_option(job: BatchJob, field: str) -> None:
    with pytest.raises(UnsupportedFieldError) as caught:
        render(job)
    assert caught.value.field == field


@given(st.text().filter(str.isprintable), st.text().filter(str.isprintable))
def test_no_value_adds_an_option_of_its_own(name: str, constraint: str) -> None:
    job = replace(JOB, name=name, placement=Placement(constraint=constraint))
    expected = [word for word in options(replace(JOB, name="")) if word != "--job-name="]
    extra = [word for word in options(job) if word not in expected]
    assert extra in ([f"--constraint={constraint}", f"--job-name={name}"], [f"--job-name={name}"])
