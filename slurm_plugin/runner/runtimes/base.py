"""What a runtime is given: one run of a container, everything resolved. Pure."""

from typing import Dict, NamedTuple, Tuple

from .. import devices
from ..image import ReadyImage
from ..plan import Container, Runtime


class Bind(NamedTuple):
    """A path of the node, at a path of the container.

    ``identity``: device and inode of what was found there; what is mounted has to be that. Empty: whatever is there.
    """

    source: str
    target: str
    read_only: bool
    identity: Tuple[int, ...] = ()


class Settled(NamedTuple):
    """A site's runtime as it is used on this node. ``barred``: why its containers can't be entered; empty: they can, as far as is known."""

    runtime: Runtime
    barred: str


class Setting(NamedTuple):
    """One run of a container, everything resolved.

    ``command`` is empty only for an image that does not say what it runs (``image.config`` is None): its own run script
    then gets ``arguments``. ``host`` is the environment that the runtime's own program gets; nothing of the pod may be in it. ``scratch`` is a
    directory of this run alone, on the node; it is removed after it. ``gated``: the runner waits at the container's
    gate. ``hostname`` is empty where the container has the node's own.
    """

    container: Container
    runtime: Runtime
    image: ReadyImage
    command: Tuple[str, ...]
    arguments: Tuple[str, ...]
    working_dir: str
    environment: Dict[str, str]
    binds: Tuple[Bind, ...]
    hostname: str
    scratch: str
    host: Dict[str, str]
    gated: bool = True


class Wanted(NamedTuple):
    """An image to be pulled into a file. ``source`` names it by its digest; ``insecure``: the registry speaks plain HTTP."""

    runtime: Runtime
    source: str
    path: str
    insecure: bool


_PREFIXES: Tuple[str, ...] = ("SLURM_", "SLURMD_NODENAME")
_RANK_PREFIXES: Tuple[str, ...] = ("PMI_", "PMI2_", "PMIX_", "PALS_", "OMPI_MCA_", "SLINGSHOT_")
_WITHHELD = ("SLURM_JWT", "SLURM_CONF", "SLURM_EXPORT_ENV")  # a credential, a path of the node, an option of srun


def job_variables(setting: Setting) -> Dict[str, str]:
    """Return what Slurm says of the job (``SLURM_JOB_ID``…) and, for a rank, of its part in it, for the container.

    Of the job's devices it is told those that it asked for.

    The pod's own variables stand above these.
    """
    prefixes = _PREFIXES + (_RANK_PREFIXES if setting.container.ranks is not None else ())
    names = [name for name in setting.host if name.startswith(prefixes) and name not in _WITHHELD]
    return dict({name: setting.host[name] for name in names}, **devices.variables(setting.container, setting.host))


class InexpressibleError(Exception):
    """The runtime can't do what the container asks for; the message says what and why."""
