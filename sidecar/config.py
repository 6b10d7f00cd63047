"""The part of the configuration file that speaks of the sidecar: how it is served, and how it is reached."""

from typing import Annotated

from pydantic import Field, model_validator

from slurm_plugin.config import AbsolutePath, Name, Settings

Url = Annotated[str, Field(pattern=r"^(https?://[^/\s]+/?|unix:/\S+)$")]


class PairSettings(Settings):
    """A certificate with its chain and its key, PEM; loaded again when the files change."""

    certificate_file: AbsolutePath
    key_file: AbsolutePath


class ServerSettings(Settings):
    """How a sidecar is served: on TCP with TLS, or on a unix socket.

    Who may use it: whoever has a client certificate of ``client_ca_file``, whoever knows a token of ``token_file`` (one a
    line), and of a unix socket whoever may open it. With both files a client needs both.
    """

    listen: str = "127.0.0.1"
    port: int = Field(default=10260, ge=1, le=65535)
    unix_socket: AbsolutePath | None = None
    certificate: PairSettings | None = None
    client_ca_file: AbsolutePath | None = None
    token_file: AbsolutePath | None = None

    @model_validator(mode="after")
    def _is_guarded(self) -> "ServerSettings":
        if self.unix_socket is None and self.certificate is None:
            raise ValueError("needs a certificate, or a unix_socket to listen on instead")
        if self.unix_socket is None and self.client_ca_file is None and self.token_file is None:
            raise ValueError("needs client_ca_file or token_file: whoever may use it can run jobs")
        if self.client_ca_file is not None and self.certificate is None:
            raise ValueError("client_ca_file needs certificate: client certificates are part of TLS")
        return self


class InterLinkServerSettings(ServerSettings):
    """Where interLink's plugin API is served, and to whom: as a sidecar's own.

    interLink's API server speaks plain HTTP to plugins and has no credentials: a unix socket is for it. Its virtual
    kubelet speaks TLS and has a token.
    """

    port: int = Field(default=4000, ge=1, le=65535)


class DialSettings(Settings):
    """Where a sidecar calls that opens the connection itself; its certificate says which sidecar it is.

    ``ca_file``: whose certificate of the agent's is believed; None the system's.
    """

    url: Annotated[str, Field(pattern=r"^https://[^/\s]+/?$")]
    ca_file: AbsolutePath | None = None
    certificate: PairSettings


class SwitchboardSettings(Settings):
    """Where an agent listens for sidecars that call it, with certificates of ``client_ca_file``."""

    listen: str = "0.0.0.0"  # noqa: S104  they come from elsewhere, and each needs a certificate
    port: int = Field(default=10261, ge=1, le=65535)
    certificate: PairSettings
    client_ca_file: AbsolutePath


class ClientSettings(Settings):
    """How a sidecar is reached: at a ``url``, or by the ``name`` of one that calls our switchboard.

    ``ca_file``: whose certificate of its is believed; None the system's.
    """

    url: Url | None = None
    name: Name | None = None
    ca_file: AbsolutePath | None = None
    certificate: PairSettings | None = None
    token_file: AbsolutePath | None = None

    @model_validator(mode="after")
    def _is_somewhere(self) -> "ClientSettings":
        if (self.url is None) == (self.name is None):
            raise ValueError("needs url, or the name of a sidecar that calls the switchboard")
        if self.name is not None and (self.ca_file is not None or self.certificate is not None):
            raise ValueError("ca_file and certificate are under switchboard for a sidecar that calls")
        return self

    @property
    def words(self) -> str:
        """Which sidecar it is, for messages."""
        return f"the sidecar at {self.url}" if self.name is None else f"the sidecar {self.name}, which calls us"
