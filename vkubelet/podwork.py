"""What the agent remembers of one pod while it lives here. Data only; nothing of it must survive the agent."""

from dataclasses import dataclass

from slurm_plugin.contract import PodReport


@dataclass(slots=True)
class Work:
    """What the agent remembers of one pod while it lives here.

    ``submitted``: the provider took it; ``doubtful``: whether it did is unknown. ``grace``: with how many seconds its end
    was last asked for. ``seen_at``: content must have been read after it. ``written_at``: the last status write.
    """

    report: PodReport | None = None
    submitted: bool = False
    doubtful: bool = False
    bound: bool = False
    grace: int | None = None
    grace_at: float = 0.0
    seen_at: float = 0.0
    written_at: float | None = None

    @property
    def known(self) -> bool:
        """Whether a job of it may exist."""
        return self.report is not None or self.submitted or self.doubtful

    @property
    def has_job(self) -> bool:
        """Whether it was submitted for certain: a directory without a job id is what an agent leaves that died before."""
        return self.report is not None and (self.report.job_id is not None or self.report.over)

    @property
    def only_waits(self) -> bool:
        """Whether all there is to tell is that its job waits, and nothing was written of it yet."""
        return self.written_at is None and self.has_job and self.report is not None and self.report.waits

    @property
    def over(self) -> bool:
        """Whether nothing of it runs, for good."""
        return self.report.over if self.report is not None else not self.known

    @property
    def job_id(self) -> str:
        """The id of its job, "" while none is known."""
        return (self.report.job_id or "") if self.report is not None else ""
