"""The part of the configuration that speaks of an interLink plugin."""

from typing import Annotated, Literal

from pydantic import Field

from slurm_plugin.config import AbsolutePath, Settings

from ..config import PairSettings


class InterLinkSettings(Settings):
    """An interLink plugin, or interLink's API server in front of one, that runs the pods.

    ``url``: ``http://``, ``https://`` or ``unix:///path``. ``speaks``: ``plugin`` (what plugins serve) or ``api`` (what
    interLink's API server serves). ``directory``: which pods the plugin was given is written there; interLink can't be
    asked. ``cpus``, ``memory_mib``: what the node offers where the plugin does not tell.
    """

    url: Annotated[str, Field(pattern=r"^(https?://[^\s/]+(/\S*)?|unix:///\S+)$")]
    speaks: Literal["plugin", "api"] = "plugin"
    directory: AbsolutePath
    token_file: AbsolutePath | None = None
    ca_file: AbsolutePath | None = None
    certificate: PairSettings | None = None
    poll_seconds: float = Field(default=5, ge=0.2, le=300)
    concurrent_requests: int = Field(default=8, ge=1, le=64)
    request_timeout_seconds: float = Field(default=120, gt=0)
    cpus: int = Field(default=1, ge=1)
    memory_mib: int = Field(default=1024, ge=1)
