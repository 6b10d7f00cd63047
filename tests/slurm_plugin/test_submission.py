import json
from collections.abc import Sequence

import pytest

from slurm_plugin.errors import HostError, SlurmUnavailableError, SubmissionRejectedError, TransportError
from slurm_plugin.hosts.base import StagedEntry, StagedFile
from slurm_plugin.job import JobId, JobKey, JobState
from slurm_plugin.jobdir import Root
from slurm_plugin.records import WITHDRAWN
from slurm_plugin.submission import Submission

from .fakes import FakeHost, FakeSlurm
from .manifests import UID

DIRECTORY = Root("/home/alice/root").job_dir(UID)
NAME = f"default/web:{UID}"
SCRIPT = f'#!/bin/bash\n#SBATCH --job-name="{NAME}"\n'
ENTRIES: Sequence[StagedEntry] = (StagedFile("plan.json", b"{}"),)


class Site:
    """A Host, a Slurm and any number of providers in turn: a new one has forgotten everything."""

    def __init__(self) -> None:
        self.host, self.slurm = FakeHost(), FakeSlurm()

    @property
    def submission(self) -> Submission:
        return Submission(self.host, self.slurm)

    async def submit(self) -> tuple[JobId, bool]:
        return await self.submission.submit(DIRECTORY, NAME, SCRIPT, ENTRIES, since=0)

    def claim(self, job_id: str) -> None:
        self.host.append(DIRECTORY.claim, b'{"job_id": "%s", "restart": 0}' % job_id.encode())


@pytest.fixture
def site() -> Site:
    return Site()


async def test_a_job_is_staged_submitted_and_written_down(site: Site) -> None:
    assert await site.submit() == ("100", False)
    assert site.host.files[DIRECTORY.plan] == b"{}"
    assert site.host.files[DIRECTORY.job_id] == b"100"


async def test_submitting_again_finds_the_same_job(site: Site) -> None:
    await site.submit()
    assert await site.submit() == ("100", True)
    assert len(site.slurm.statuses) == 1


async def test_a_job_whose_id_was_never_written_down_is_found_by_its_name(site: Site) -> None:
    site.host.break_("write")
    with pytest.raises(TransportError):
        await site.submit()
    assert await site.submit() == ("100", True)
    assert site.host.files[DIRECTORY.job_id] == b"100"
    assert len(site.slurm.statuses) == 1


@pytest.mark.parametrize("operation", ["stage", "submit", "write"])
async def test_a_lost_answer_leads_to_one_job(site: Site, operation: str) -> None:
    (site.slurm if operation == "submit" else site.host).lose(operation)
    with pytest.raises(TransportError):
        await site.submit()
    assert await site.submit() == ("100", True)
    assert len(site.slurm.statuses) == 1


async def test_an_unknown_outcome_is_found_out_before_anything_is_repeated(site: Site) -> None:
    site.slurm.lose("submit")
    with pytest.raises(TransportError):
        await site.submit()
    site.slurm.break_("find")
    with pytest.raises(TransportError):
        await site.submit()
    assert len(site.slurm.statuses) == 1


async def test_of_several_attempts_one_whose_job_is_alive_is_found_before_one_whose_job_has_ended(site: Site) -> None:
    """One that found its pod withdrawn has failed at once, and is not how the pod ended."""
    for _ in range(2):
        site.slurm.lose("submit")
        with pytest.raises(TransportError):
            await site.submit()
        await site.host.remove_tree(DIRECTORY.path)
    await site.host.stage(DIRECTORY.path, ENTRIES)
    site.slurm.set("100", state=JobState.FAILED)
    assert await site.submit() == ("101", True)
    site.slurm.set("101", state=JobState.CANCELLED)
    await site.host.remove_tree(DIRECTORY.path)
    await site.host.stage(DIRECTORY.path, ENTRIES)
    assert await site.submit() == ("100", True)


@pytest.mark.parametrize("error", [SubmissionRejectedError("no"), SlurmUnavailableError("away")])
async def test_a_refused_job_leaves_nothing_behind(site: Site, error: Exception) -> None:
    site.slurm.refuses = error
    with pytest.raises(type(error)):
        await site.submit()
    assert DIRECTORY.path not in site.host.directories
    site.slurm.refuses = None
    assert await site.submit() == ("100", False)


async def test_a_refusal_after_an_unknown_outcome_leaves_a_late_job_nothing_to_run(site: Site) -> None:
    site.slurm.break_("submit")
    with pytest.raises(TransportError):
        await site.submit()
    site.slurm.refuses = SubmissionRejectedError("no")
    with pytest.raises(SubmissionRejectedError):
        await site.submit()
    assert DIRECTORY.plan not in site.host.files
    assert DIRECTORY.claim not in site.host.files


async def test_a_withdrawal_that_was_cut_short_keeps_no_later_job_from_running(site: Site) -> None:
    site.slurm.break_("submit")
    with pytest.raises(TransportError):
        await site.submit()
    site.slurm.refuses = SubmissionRejectedError("no")
    site.host.break_("remove_tree")
    with pytest.raises(TransportError):
        await site.submit()
    assert json.loads(site.host.files[DIRECTORY.claim])["restart"] == WITHDRAWN
    site.slurm.refuses = None
    assert await site.submit() == ("100", False)
    assert DIRECTORY.claim not in site.host.files


async def test_a_refusal_gives_way_to_the_earlier_attempts_job_if_that_runs_the_pod(site: Site) -> None:
    site.slurm.break_("submit")
    with pytest.raises(TransportError):
        await site.submit()
    site.slurm.refuses = SubmissionRejectedError("no")
    site.claim("77")
    assert await site.submit() == ("77", True)
    assert DIRECTORY.plan in site.host.files


async def late_twin(site: Site) -> None:
    """Two jobs of one pod: 100, and 101 of an sbatch that was killed before and accepted after."""
    site.slurm.break_("submit")
    with pytest.raises(TransportError):
        await site.submit()
    assert await site.submit() == ("100", True)
    site.slurm.accept_late()


async def twins(site: Site, keep: str) -> list[tuple[str, ...]]:
    key = JobKey(NAME, DIRECTORY.path)
    await site.submission.cancel_others(DIRECTORY, JobId(keep), (await site.slurm.queued([key]))[key])
    return [words for words in site.slurm.asked if words[0] == "cancel"]


async def test_a_waiting_twin_is_cancelled(site: Site) -> None:
    await late_twin(site)
    assert await twins(site, "100") == [("cancel", "101")]


async def test_the_twin_that_claimed_the_pod_is_kept_and_the_other_cancelled(site: Site) -> None:
    await late_twin(site)
    site.slurm.set("101", state=JobState.RUNNING)
    site.claim("101")
    assert await twins(site, "100") == [("cancel", "100")]


async def test_a_twin_that_may_be_claiming_the_pod_is_left_alone(site: Site) -> None:
    await late_twin(site)
    site.slurm.set("101", state=JobState.RUNNING)
    assert await twins(site, "100") == []


async def test_jobs_of_other_names_and_ended_ones_are_left_alone(site: Site) -> None:
    await late_twin(site)
    site.slurm.accept(SCRIPT.replace("web", "other"), DIRECTORY.path)
    site.slurm.accept(SCRIPT, "/elsewhere")
    site.slurm.set("101", state=JobState.COMPLETED)
    assert await twins(site, "100") == []
    await site.submission.cancel_all(DIRECTORY, NAME)
    assert site.slurm.asked[-1:] == [("cancel", "100")]


async def test_a_forbidden_pod_has_all_its_jobs_cancelled(site: Site) -> None:
    await late_twin(site)
    assert await site.submission.forbid(DIRECTORY)
    await site.submission.cancel_all(DIRECTORY, NAME)
    assert site.slurm.asked[-2:] == [("cancel", "100"), ("cancel", "101")]


async def test_forbidding_a_pod_again_is_the_same(site: Site) -> None:
    site.host.lose("run")
    with pytest.raises(TransportError):
        await site.submission.forbid(DIRECTORY)
    assert await site.submission.forbid(DIRECTORY)


async def test_a_pod_that_a_job_has_claimed_can_not_be_forbidden(site: Site) -> None:
    await site.submit()
    site.claim("100")
    assert not await site.submission.forbid(DIRECTORY)


async def test_a_claim_that_can_not_be_read_is_an_error_and_no_answer(site: Site) -> None:
    await site.submit()
    site.host.append(DIRECTORY.claim, b"nonsense")
    with pytest.raises(HostError, match="is not a claim"):
        await site.submission.forbid(DIRECTORY)


@pytest.mark.parametrize("holder", ["--user=alice", "9999999999", "1,2", "\u0663", ""])
async def test_a_claim_that_names_no_job_is_an_error_and_never_reaches_slurm(site: Site, holder: str) -> None:
    await site.submit()
    site.claim(holder)
    with pytest.raises(HostError, match="names no job"):
        await site.submission.forbid(DIRECTORY)


async def test_a_job_id_file_that_holds_nonsense_is_not_believed(site: Site) -> None:
    await site.submit()
    site.host.files[DIRECTORY.job_id] = b"1; rm -rf /\n"
    assert await site.submit() == ("100", True)
