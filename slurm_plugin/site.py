"""Putting a Slurm user's root directory in place: whose it is, the runner's archive, the rooms for pods and images."""

import asyncio
from collections.abc import Callable, Sequence

from .archive import Archive
from .config import SiteSettings
from .errors import HostError, TransportError
from .hosts.base import Host
from .jobdir import Root
from .translate import Site

_WRITABLE_SECONDS = 20.0
_LINE_SECONDS = 2.0
# Less may find room where a job's directory would not: beside other small files, or in the inode.
_BLOCK_BYTES = 4096


async def _check_owner(host: Host, root: Root, owner: str) -> None:
    """Make the root the owner's, or raise HostError if it is another's: each would end the other's pods."""
    found = await host.read(root.owner)
    if found is None:
        await host.write(root.owner, f"{owner}\n".encode())
    elif (other := found.decode(errors="replace").strip()) != owner:
        raise HostError(
            f"{root.path} belongs to {other}; this is {owner}. Give each virtual node a root of its own (slurm.root); "
            f"if that node is gone for good and its jobs have ended, remove {root.owner}"
        )


async def prepare_site(host: Host, settings: SiteSettings, *, archive: Archive, node: str, owner: str) -> Site:
    """Return what translations depend on, after making sure that the user's root is there, ours and complete.

    Idempotent. Raises HostError (another's root, not writable, full) and TransportError.
    """
    root = settings.slurm.root_for(user=await host.user(), home=await host.home(), node=node)
    path = root.archive(archive.digest)
    for directory in (root.pods, root.images, path.rpartition("/")[0]):
        await host.stage(directory, ())
    await _check_owner(host, root, owner)
    if await host.read(path) != archive.data:
        await host.write(path, archive.data, mode=0o500)
    uid, gid = await _number(host, "-u"), await _number(host, "-g")
    return Site(settings, root, path, archive.digest, uid, gid)


async def _number(host: Host, option: str) -> int | None:
    """Return what ``id`` says of the Slurm user, None if it says no number."""
    answer = await host.run(["id", option], timeout=30)
    return int(answer.stdout) if answer.stdout.strip().isdigit() else None


async def watch_writable(host: Host, site: Callable[[], Site | None], well: Callable[[], None]) -> None:
    """Write a block into the root, again and again (a source of ``reporting``): reading alone would not tell that it is full.

    Raises HostError with the path once it is full, over its quota, read-only or no more ours. Whether the Host is
    reached is for the other sources to tell; so is whether there is a root yet.
    """
    while True:
        made = site()
        try:
            if made is not None:
                await host.write(f"{made.root.path}/.writable", b"\n" * _BLOCK_BYTES)
        except TransportError:
            await asyncio.sleep(_LINE_SECONDS)
            continue
        well()
        await asyncio.sleep(_WRITABLE_SECONDS)


async def find_python(host: Host, interpreters: Sequence[str]) -> str:
    """Return the first Python that there is on the login node. HostError if there is none."""
    for path in interpreters:
        try:
            answer = await host.run([path, "-V"], timeout=30)
        except HostError:
            continue
        if answer.exit_code == 0:
            return path
    raise HostError(f"no Python on the login node: tried {', '.join(interpreters)}")
