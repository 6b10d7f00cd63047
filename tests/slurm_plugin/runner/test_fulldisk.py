"""A file system that refuses for a while, as one that is full does, costs words and time, and never the pod."""

import errno
import os
import resource
from pathlib import Path

import pytest

from slurm_plugin.runner.logs import LogFile
from slurm_plugin.runner.state import Terminated, Waiting

from .conftest import MakeJob
from .jobs import exec_action, pod, probe, shell

_UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def test_a_full_disk_loses_words_and_not_the_pod(job: MakeJob, tmp_path: Path) -> None:
    # Of the disk, not of the container: it would inherit the limit that stands for a full disk.
    again = f"ulimit -f unlimited; echo run >> {tmp_path}/runs; echo words; exit $(test $(wc -l < {tmp_path}/runs) -ge 4; echo $?)"
    unready = probe(exec_action("false"), failure_threshold=1)
    waiting = f"until test -e {tmp_path}/free; do echo more; sleep 0.1; done; echo last"
    j = job(
        pod(
            shell("again", again, restart_policy="OnFailure", termination_message_policy="FallbackToLogsOnError"),
            shell("waiting", waiting, readiness_probe=unready),
        )
    )
    with (tmp_path / "job.log").open("w") as output:
        runner = j.start(output=output)
    j.wait_until(lambda j: (tmp_path / "runs").exists() and bool(j.log("waiting")))
    resource.prlimit(runner.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    j.wait_until(lambda _: (tmp_path / "runs").read_text().count("run") >= 3)
    resource.prlimit(runner.pid, resource.RLIMIT_FSIZE, _UNLIMITED)
    (tmp_path / "free").touch()
    assert runner.wait(60) == 0
    assert j.state().final
    assert [type(each.state) for each in j.state().containers] == [Terminated, Terminated]
    assert j.log("waiting")[-1] == "stdout F last"


def test_a_container_waits_while_there_is_no_room_for_its_termination_message(job: MakeJob) -> None:
    j = job(pod(shell("a", "exit 0")))
    hindrance = Path(j.directory.termination("a")).parent
    hindrance.touch()
    runner = j.start()
    j.wait_until(
        lambda j: isinstance(state := j.container("a").state, Waiting) and state.reason == "CreateContainerError"
    )
    hindrance.unlink()
    assert runner.wait(60) == 0


def test_a_disk_that_turns_out_to_be_full_when_a_log_is_closed_loses_only_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    close, full = os.close, True

    def closing(descriptor: int) -> None:
        refused = full and os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(tmp_path))
        close(descriptor)
        if refused:  # NFS says here what it could not write, and has closed it all the same
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    log = LogFile(str(tmp_path / "0.log"), max_bytes=10, max_files=9)
    monkeypatch.setattr(os, "close", closing)
    log.write(b"first one\n")
    log.write(b"second\n")
    full = False
    log.write(b"third one\n")
    full = True
    log.close()
    monkeypatch.undo()
    assert capfd.readouterr().err.count("Disk quota exceeded") == 1
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["first one\n", "second\n", "third one\n"]
