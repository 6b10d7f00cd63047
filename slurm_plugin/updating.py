"""Swaps a volume's content in a live pod's job directory, as Kubernetes' atomic writer does.

Order: the new files under a name of their own, ``..data`` (what containers see changes here, all at once), the links of
names that are new, and last what is not needed any more. Whoever is stopped in between is made good by the next call.
"""

from collections.abc import Sequence

from .contract import VolumeFile
from .hosts.base import Host
from .jobdir import JobDir
from .staging import content_version, volume_files, volume_links

_DATA = "..data"


async def update_volume(host: Host, directory: JobDir, volume: str, files: Sequence[VolumeFile]) -> None:
    """Make a volume hold exactly these files; what is so already is left alone. Raises HostError, TransportError."""
    base, version = directory.volume(volume), content_version(files)
    there = set(await host.list_directory(base) or ())
    links = {link.path: link for link in volume_links(files)}
    versions = {name for name in there if name.startswith("..") and name != _DATA}
    stale = {name for name in there - set(links) if not name.startswith("..")}
    if versions == {version} and not stale and set(links) <= there:
        return
    if version not in there:
        await host.stage(f"{base}/{version}", volume_files(volume, files))
    await host.swap_link(f"{base}/{_DATA}", version)
    for name in sorted(set(links) - there):
        await host.swap_link(f"{base}/{name}", links[name].target)
    for name in sorted(stale):
        await host.run(["rm", "-f", "--", f"{base}/{name}"], timeout=30)
    for name in sorted(versions - {version}):
        await host.remove_tree(f"{base}/{name}")
