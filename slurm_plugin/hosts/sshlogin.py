"""An authenticated SSH connection to a machine whose key is known, through as many others as it takes. Blocking; ``ssh`` calls it in threads."""

import logging
import socket
import time
from dataclasses import dataclass

import paramiko

from ..errors import HostError, SlurmletError, TransportError
from . import knownhosts
from .hostkeys import HostKeys, known_name
from .userkeys import UserKeys

# SSH's own flow control, below the streams' credit. paramiko moves what waits in it at every read: not larger than needed.
_WINDOW_BYTES = 4 << 20
# Authenticated encryption first: it is one pass over the bytes instead of two.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")

# paramiko logs what it also raises, with tracebacks; we raise it.
_PARAMIKO_LOG = f"{__name__}.paramiko"
logging.getLogger(_PARAMIKO_LOG).setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class Login:
    """Where, as whom, and by what trust. No ``key_files``: the user's SSH agent and usual keys. Times in seconds.

    ``certificate_file``: of the key, where it is not ``KEY-cert.pub``. ``through``: the machines on the way, the nearest
    first, each with a login of its own (ssh_config(5), ProxyJump).
    """

    address: str
    port: int
    user: str
    key_files: tuple[str, ...]
    known_hosts_files: tuple[str, ...]
    connect_timeout: float
    keepalive_seconds: int
    certificate_file: str | None = None
    through: tuple["Login", ...] = ()

    @property
    def name(self) -> str:
        """The login as one writes it."""
        return f"{self.user}@{self.address}" + ("" if self.port == 22 else f":{self.port}")

    @property
    def known_name(self) -> str:
        """The host as known_hosts files spell it."""
        return known_name(self.address, self.port)


class Line:
    """The connections on the way to a machine, each inside the one before."""

    def __init__(self) -> None:
        self._transports: list[paramiko.Transport] = []

    @property
    def last(self) -> paramiko.Transport:
        """The connection to the machine itself."""
        return self._transports[-1]

    def add(self, transport: paramiko.Transport) -> None:
        """Keep a connection, to be closed with the others."""
        self._transports.append(transport)

    def close(self) -> None:
        """Close all, the innermost first."""
        for transport in reversed(self._transports):
            transport.close()


class _Transport(paramiko.Transport):
    """paramiko's, asking for the kinds of host keys that are known, in that order, and for no others."""

    host_key_algorithms: tuple[str, ...] = ()

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """What is sent; paramiko's own would put certificates last, where nobody chooses them."""
        return self.host_key_algorithms


def _socket(login: Login) -> socket.socket:
    sock = socket.create_connection((login.address, login.port), timeout=login.connect_timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if login.keepalive_seconds and hasattr(socket, "TCP_USER_TIMEOUT"):
        # What a keep-alive finds out: a network that swallows packets ends the connection after three of them.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3000 * login.keepalive_seconds)
    return sock


def _onward(line: Line, before: Login, login: Login) -> paramiko.Channel:
    """Have a machine on the way connect us to the next one: the channel that ssh(1)'s -W and ProxyJump use."""
    try:
        return line.last.open_channel(
            "direct-tcpip",
            (login.address, login.port),
            ("127.0.0.1", 0),
            window_size=_WINDOW_BYTES,
            timeout=login.connect_timeout,
        )
    except paramiko.ChannelException as error:
        what = f"{before.name} does not connect us to {login.address} port {login.port}"
        if error.code == 1:  # SSH_OPEN_ADMINISTRATIVELY_PROHIBITED
            raise HostError(f"{what}: it is forbidden there (sshd's AllowTcpForwarding, PermitOpen)") from error
        raise TransportError(f"{what}: {error.text}") from error


def _transport(login: Login, sock: "socket.socket | paramiko.Channel", keys: HostKeys) -> _Transport:
    transport = _Transport(sock, default_window_size=_WINDOW_BYTES)
    transport.set_log_channel(_PARAMIKO_LOG)
    transport.banner_timeout = transport.auth_timeout = transport.channel_timeout = login.connect_timeout
    security = transport.get_security_options()
    fast = tuple(name for name in _CIPHERS if name in security.ciphers)
    security.ciphers = fast + tuple(name for name in security.ciphers if name not in fast)
    transport.host_key_algorithms = keys.algorithms(tuple(security.key_types))
    return transport


def _join(line: Line, login: Login, before: Login | None) -> None:
    """Connect to one machine, be sure that it is the right one, and log in."""
    keys = HostKeys(login.address, login.port, login.known_hosts_files, knownhosts.load(login.known_hosts_files))
    users = UserKeys(login.name, login.user, login.key_files, login.certificate_file)
    users.check()
    sock = _socket(login) if before is None else _onward(line, before, login)
    transport = _transport(login, sock, keys)
    line.add(transport)
    transport.start_client(timeout=login.connect_timeout)
    keys.verify(transport.get_remote_server_key(), time.time())
    users.authenticate(transport, time.time())
    transport.set_keepalive(login.keepalive_seconds)


def _connect(login: Login) -> Line:
    line = Line()
    before = None
    for each in (*login.through, login):
        try:
            _join(line, each, before)
        except BaseException as error:
            line.close()
            raise _our_error(each, error) from error
        before = each
    return line


def open_channel(login: Login, command: str) -> tuple[Line, paramiko.Channel]:
    """Connect and start a command through the login shell. HostError: a person must act; TransportError: it may work later."""
    line = _connect(login)
    try:
        channel = line.last.open_session(window_size=_WINDOW_BYTES, timeout=login.connect_timeout)
        channel.exec_command(command)
    except BaseException as error:
        line.close()
        raise _our_error(login, error) from error
    return line, channel


def _our_error(login: Login, error: BaseException) -> BaseException:
    """Return our word for an error."""
    if isinstance(error, SlurmletError):
        return error
    if isinstance(error, paramiko.SSHException) and "protocol banner" in str(error):
        return TransportError(
            f"{login.address} port {login.port} takes the connection and does not greet: no SSH server, or one that turns "
            "us away for now (sshd's MaxStartups, or PerSourcePenalties after refused logins)"
        )
    if isinstance(error, (OSError, EOFError, paramiko.SSHException)):
        return TransportError(f"can't connect to {login.address} port {login.port}: {error}")
    return error
