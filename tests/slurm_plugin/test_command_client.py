import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from slurm_plugin.clients.command import CommandClient, Timeouts
from slurm_plugin.errors import (
    HostError,
    SlurmError,
    SlurmUnavailableError,
    SubmissionRejectedError,
    TransportError,
    UnparsableOutputError,
)
from slurm_plugin.hosts.base import Completed
from slurm_plugin.job import JobId, JobState

SAMPLES = Path(__file__).parent / "samples"
VERSIONS = ["22.05", "24.11", "26.05"]

Answer = Callable[[tuple[str, ...]], tuple[int, str, str]]


class ScriptedHost:
    """A Host of which only commands are used: answers each one, and keeps what was asked."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[tuple[tuple[str, ...], bytes, float]] = []
        self._answer = answer

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        self.asked.append((tuple(argv), stdin, timeout))
        exit_code, stdout, stderr = self._answer(tuple(argv))
        return Completed(tuple(argv), exit_code, stdout.encode("utf-8", "surrogateescape"), stderr.encode())


def client_of(
    answer: Answer | tuple[int, str, str], *, timeouts: Timeouts | None = None
) -> tuple[CommandClient, ScriptedHost]:
    host = ScriptedHost(answer if callable(answer) else lambda _: answer)
    return CommandClient(host, user="alice", timeouts=timeouts), host


def failing(exit_code: int, *stderr: str) -> CommandClient:
    return client_of((exit_code, "", "".join(f"{line}\n" for line in stderr)))[0]


def recorded(version: str) -> dict[str, tuple[int, str, str]]:
    words = json.loads((SAMPLES / version / "words.json").read_text(encoding="utf-8"))
    return {name: (said["exit_code"], said["stdout"], said["stderr"]) for name, said in words.items()}


async def submit(client: CommandClient) -> JobId:
    return await client.submit("#!/bin/sh\n", directory="/pods/1")


async def test_the_script_goes_to_sbatch_on_standard_input() -> None:
    client, host = client_of((0, "7\n", "sbatch: a remark of the site's\n"))
    assert await client.submit("#!/bin/sh\necho ü\n", directory="/pods/1") == "7"
    assert host.asked == [(("sbatch", "--parsable", "--chdir=/pods/1"), "#!/bin/sh\necho ü\n".encode(), 90)]


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_recorded_refusal_is_permanent_and_in_sbatchs_own_words(version: str) -> None:
    refusals = {name: answer for name, answer in recorded(version).items() if name.startswith("sbatch-")}
    limit = refusals.pop("sbatch-limit")
    assert len(refusals) > 10
    for answer in refusals.values():
        with pytest.raises(SubmissionRejectedError) as caught:
            await submit(client_of(answer)[0])
        assert not caught.value.limit
        assert caught.value.words
        assert "sbatch: error" not in caught.value.words
    with pytest.raises(
        SubmissionRejectedError, match="QOSMaxSubmitJobPerUserLimit\nBatch job submission failed"
    ) as caught:
        await submit(client_of(limit)[0])
    assert caught.value.limit


POLICY = "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


@pytest.mark.parametrize(
    ("cause", "limit"),
    [
        ("AssocMaxSubmitJobLimit", True), ("AssocGrpSubmitJobsLimit", True), ("QOSGrpSubmitJobsLimit", True), ("QOSMaxSubmitJobPerAccountLimit", True),
        ("QOSMaxJobsPerUserLimit", True), ("AssocMaxJobsLimit", True), ("QOSMaxCpuPerJobLimit", False), ("QOSMaxWallDurationPerJobLimit", False),
        ("AssocGrpCpuLimit", False), ("QOSMaxMemoryPerJob", False),
    ],
)  # fmt: skip
async def test_only_a_limit_on_the_number_of_jobs_may_be_waited_for(cause: str, limit: bool) -> None:
    with pytest.raises(SubmissionRejectedError) as caught:
        await submit(failing(1, f"sbatch: error: {cause}", POLICY))
    assert caught.value.limit == limit


@pytest.mark.parametrize(
    "stderr",
    [
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",),
        (
            "sbatch: error: If munged is up, restart with --num-threads=10",
            'sbatch: error: Munge encode failed: Failed to connect to "/run/munge/munge.socket.2": Connection refused',
            "sbatch: error: slurm_buffers_pack_msg: auth_g_create: REQUEST_SUBMIT_BATCH_JOB has authentication error",
            "sbatch: error: Batch job submission failed: Protocol authentication error",
        ),
        (
            "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
            "sbatch: error: Batch job submission failed: Resource temporarily unavailable",
        ),
        ("sbatch: error: Batch job submission failed: Slurm backup controller in standby mode",),
        ("sbatch: error: Batch job submission failed: Required partition not available (inactive or drain)",),
        ("sbatch: error: Batch job submission failed: System submissions disabled",),
        ("sbatch: error: Batch job submission failed: Unable to create job record, try again",),
        ("sbatch: error: Batch job submission failed: I/O error writing script/environment to file",),
        ("sbatch: error: Batch job submission failed: Rate limit exceeded, please retry later",),
        ("sbatch: error: Batch job submission failed: Incompatible versions of client and server code",),
        (
            "sbatch: error: _parse_next_key: Parsing error at unrecognized key: Nonsense",
            "sbatch: fatal: Unable to process configuration file",
        ),
        (
            "sbatch: error: fetch_config: DNS SRV lookup failed",
            "sbatch: error: _establish_config_source: failed to fetch config",
            "sbatch: fatal: Could not establish a configuration source",
        ),
    ],
)
async def test_a_submission_that_certainly_reached_nobody_may_be_repeated(stderr: tuple[str, ...]) -> None:
    with pytest.raises(SlurmUnavailableError):
        await submit(failing(1, *stderr))


@pytest.mark.parametrize(
    ("exit_code", "stderr"),
    [
        (1, ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",)),
        (1, ("sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",)),
        (1, ("sbatch: error: Batch job submission failed: Unable to contact slurm controller",)),
        (
            1,
            (
                "sbatch: error: Socket timed out on send/recv operation",
                "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
            ),
        ),
        (137, ()),
    ],
)
async def test_a_submission_that_may_have_been_heard_is_in_doubt(exit_code: int, stderr: tuple[str, ...]) -> None:
    with pytest.raises(TransportError):
        await submit(failing(exit_code, *stderr))


async def test_a_refusal_after_a_pause_is_a_refusal() -> None:
    pause = "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying"
    with pytest.raises(SubmissionRejectedError):
        await submit(failing(1, pause, "sbatch: error: Batch job submission failed: Invalid qos specification"))


def never(_: tuple[str, ...]) -> tuple[int, str, str]:
    raise TimeoutError


async def test_without_an_answer_a_change_is_in_doubt_and_a_query_is_not() -> None:
    client, _ = client_of(never, timeouts=Timeouts(submit=90, query=60, cancel=30))
    with pytest.raises(TransportError, match="no answer within 90 s"):
        await submit(client)
    with pytest.raises(TransportError, match="no answer within 30 s"):
        await client.signal_batch(JobId("7"), "TERM")
    with pytest.raises(TransportError):
        await client.cancel(JobId("7"))
    for query in (client.jobs(), client.ended_jobs([JobId("7")], since=0), client.cluster()):
        with pytest.raises(SlurmUnavailableError, match="no answer within 60 s"):
            await query


async def test_a_missing_command_is_said_with_what_to_do() -> None:
    with pytest.raises(HostError, match=r"No such file.*PATH"):
        await failing(127, "env: 'squeue': No such file or directory").jobs()


@pytest.mark.parametrize("version", VERSIONS)
async def test_signalling_or_cancelling_a_job_that_is_gone_is_a_no_op(version: str) -> None:
    words = recorded(version)
    for name in ("signal-unknown", "signal-ended", "signal-held"):
        await client_of(words[name])[0].signal_batch(JobId("7"), "TERM")
    for name in ("scancel-unknown", "scancel-ended"):
        await client_of(words[name])[0].cancel(JobId("7"))


@pytest.mark.parametrize(
    ("exit_code", "stderr", "error"),
    [
        (140, "scancel: error: Kill job error on job id 1: Socket timed out on send/recv operation", TransportError),
        (
            8,
            "scancel: error: Kill job error on job id 1: Unable to contact slurm controller (connect failure)",
            SlurmUnavailableError,
        ),
        (1, "scancel: error: Kill job error on job id 1: Access/permission denied", SlurmError),
    ],
)
async def test_a_failed_scancel_is_told_apart(exit_code: int, stderr: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        await failing(exit_code, stderr).cancel(JobId("1"))
    assert caught.type is error


@pytest.mark.parametrize(
    "stderr",
    [
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)",),
        ("slurm_load_jobs error: Socket timed out on send/recv operation",),
        (
            "sacct: error: _open_persist_conn: failed to open persistent connection to host:127.0.0.1:6819: Connection refused",
            "sacct: error: Sending PersistInit msg: Connection refused",
            "sacct: error: Problem talking to the database: Connection refused",
        ),
    ],
)
async def test_a_query_that_nobody_answers_is_unavailability(stderr: tuple[str, ...]) -> None:
    for query in (failing(1, *stderr).jobs(), failing(1, *stderr).ended_jobs([JobId("7")], since=0)):
        with pytest.raises(SlurmUnavailableError):
            await query


async def test_any_other_failed_query_is_an_error_that_waiting_does_not_mend() -> None:
    with pytest.raises(SlurmError) as caught:
        await failing(1, 'sacct: error: Invalid field requested: "Foo"').ended_jobs([JobId("7")], since=0)
    assert not caught.value.transient


async def test_nonsense_from_a_command_that_succeeded_is_not_an_empty_queue() -> None:
    client, _ = client_of((0, "\n\n", "squeue: error: Invalid job format specification: Foo\n"))
    with pytest.raises(UnparsableOutputError):
        await client.jobs()


async def test_a_cluster_without_accounts_knows_no_ended_job() -> None:
    assert (
        await failing(1, "sacct: error: Slurm accounting storage is disabled").ended_jobs([JobId("7")], since=0) == {}
    )


async def test_accounting_is_asked_for_at_most_five_hundred_jobs_at_a_time() -> None:
    def answer(argv: tuple[str, ...]) -> tuple[int, str, str]:
        ids = next(word for word in argv if word.startswith("--jobs=")).removeprefix("--jobs=").split(",")
        assert len(ids) <= 500
        return 0, "".join(f"{job_id}|COMPLETED|0:0|cpu|1|1|2|cn1|None\n" for job_id in ids if job_id != "3"), ""

    client, host = client_of(answer)
    wanted = [JobId(str(number)) for number in range(1, 1202)]
    found = await client.ended_jobs(wanted, since=0)
    assert len(host.asked) == 3
    assert set(found) == set(wanted) - {"3"}


async def test_no_job_to_ask_for_asks_nobody() -> None:
    client, host = client_of((1, "", "never asked"))
    assert await client.ended_jobs([], since=0) == {}
    assert host.asked == []


async def test_a_job_of_this_name_is_found_in_both_places_oldest_first() -> None:
    def answer(argv: tuple[str, ...]) -> tuple[int, str, str]:
        assert "--name=ns/pod:1" in argv
        if "squeue" in argv:
            return 0, "9|PENDING|0:0|0|cpu|20|N/A|N/A|n/a||Dependency|/pods/1\n", ""
        return (
            0,
            "9|PENDING|0:0|cpu|20|Unknown|Unknown||None|/pods/1\n8|FAILED|1:0|cpu|10|10|11|cn1|None|/pods/1\n7|FAILED|1:0|cpu|5|5|6|cn1|None|/other\n",
            "",
        )

    found = await client_of(answer)[0].find("ns/pod:1", directory="/pods/1", since=0)
    assert [(job.job_id, job.state, job.reason) for job in found] == [
        ("8", JobState.FAILED, ""),
        ("9", JobState.PENDING, "Dependency"),
    ]


@pytest.mark.parametrize("queued", [True, False])
async def test_a_job_that_the_queue_knows_is_found_though_accounting_is_away(queued: bool) -> None:
    def answer(argv: tuple[str, ...]) -> tuple[int, str, str]:
        if "squeue" in argv:
            return 0, "9|PENDING|0:0|0|cpu|20|N/A|N/A|n/a||Dependency|/pods/1\n" if queued else "", ""
        return 1, "", "sacct: error: Problem talking to the database: Connection refused"

    finding = client_of(answer)[0].find("ns/pod:1", directory="/pods/1", since=0)
    if queued:
        assert [job.job_id for job in await finding] == ["9"]
    else:
        with pytest.raises(SlurmUnavailableError):
            await finding


async def test_the_cluster_is_asked_for_its_configuration_now_and_then() -> None:
    now = 0.0
    plugins = "task/none"

    def answer(argv: tuple[str, ...]) -> tuple[int, str, str]:
        name = {"config": "config.txt", "node": "nodes.txt", "partition": "partitions.txt"}[argv[-1]]
        said = (SAMPLES / "24.11" / name).read_text(encoding="utf-8")
        return 0, f"TaskPlugin = {plugins}\n{said}" if argv[-1] == "config" else said, ""

    host = ScriptedHost(answer)
    client = CommandClient(host, user="alice", clock=lambda: now)
    cluster = await client.cluster()
    assert (cluster.name, cluster.version, len(cluster.nodes), len(cluster.partitions)) == ("testbed", "24.11.5", 6, 4)
    plugins = "task/affinity"
    assert await client.cluster() == cluster
    assert len(host.asked) == 5
    now = 301.0
    enforcement = (await client.cluster()).enforcement
    assert (len(host.asked), enforcement is not None and enforcement.cores) == (8, True)


async def test_at_most_eight_submissions_run_at_a_time() -> None:
    running = most = 0

    class SlowHost(ScriptedHost):
        async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
            nonlocal running, most
            running += 1
            most = max(most, running)
            for _ in range(3):
                await asyncio.sleep(0)
            running -= 1
            return await super().run(argv, stdin=stdin, timeout=timeout)

    client = CommandClient(SlowHost(lambda _: (0, "7\n", "")), user="alice")
    await asyncio.gather(*(submit(client) for _ in range(50)))
    assert most == 8
