import pytest

from slurm_plugin import commands
from slurm_plugin.job import JobId


def test_the_script_is_submitted_on_standard_input_from_its_directory() -> None:
    assert commands.submit("/home/alice/pods/1 2") == ("sbatch", "--parsable", "--chdir=/home/alice/pods/1 2")


def test_the_poll_asks_for_all_states_of_the_calling_users_jobs_and_no_text_of_users() -> None:
    assert commands.queue() == (
        *("env", "SLURM_TIME_FORMAT=%s", "squeue", "--local", "--noheader", "--array", "--states=all", "--me"),
        (
            "--Format=JobArrayID:0|,State:0|,exit_code:0|,RestartCnt:0|,Partition:0|,SubmitTime:0|,StartTime:0|,EndTime:0|,BatchHost:0|"
            ",NodeList:0|,Reason:0"
        ),
    )


def test_accounting_is_asked_for_jobs_and_not_steps_an_hour_earlier_than_needed() -> None:
    assert commands.accounting("alice", [JobId("7"), JobId("12")], since=1_800_003_600) == (
        *(
            "env",
            "SLURM_TIME_FORMAT=%s",
            "sacct",
            "--parsable2",
            "--noheader",
            "-X",
            "--user=alice",
            "--starttime=uts1800000000",
        ),
        "--jobs=7,12",
        "--format=JobID,State,ExitCode,Partition,Submit,Start,End,NodeList,Reason",
    )


def test_accounting_is_never_asked_from_a_time_that_sacct_does_not_take() -> None:
    assert "--starttime=uts1000000" in commands.accounting("alice", [JobId("7")], since=0)


def test_a_name_is_looked_for_with_the_working_directory_as_last_field() -> None:
    queue = commands.find_in_queue("ns/pod:1")
    assert queue[:-1] == (*commands.queue()[:-1], "--name=ns/pod:1")
    assert queue[-1] == commands.queue()[-1] + "|,WorkDir:0"
    assert commands.queue_with_keys() == (*commands.queue()[:-1], commands.queue()[-1] + "|,Name:0|,WorkDir:0")
    accounting = commands.find_in_accounting("alice", "ns/pod:1", since=1_800_003_600)
    assert accounting[-2:] == (
        "--name=ns/pod:1",
        "--format=JobID,State,ExitCode,Partition,Submit,Start,End,NodeList,Reason,WorkDir",
    )


def test_a_signal_goes_to_the_batch_process_of_a_running_job_alone() -> None:
    assert commands.signal_batch(JobId("7"), "TERM") == ("scancel", "--state=RUNNING", "--batch", "--signal=TERM", "7")
    assert commands.cancel(JobId("7")) == ("scancel", "7")


@pytest.mark.parametrize("job_id", ["", "7 8", "-u", "7_1", "7+1", "٣", "7\n"])
def test_what_is_not_a_job_id_never_reaches_slurm(job_id: str) -> None:
    for build in (
        commands.cancel,
        lambda job: commands.signal_batch(job, "TERM"),
        lambda job: commands.accounting("alice", [job], since=0),
    ):
        with pytest.raises(ValueError, match="not the id of a job"):
            build(JobId(job_id))


@pytest.mark.parametrize("name", ["", "a,b", "a\nb", "a\0"])
def test_a_name_that_slurm_would_take_for_two_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a job name"):
        commands.find_in_queue(name)
    with pytest.raises(ValueError, match="not a job name"):
        commands.find_in_accounting("alice", name, since=0)


@pytest.mark.parametrize("directory", ["", "relative", "/a\nb"])
def test_a_working_directory_is_absolute(directory: str) -> None:
    with pytest.raises(ValueError, match="not an absolute directory"):
        commands.submit(directory)
