"""A root directory has one owner."""

from pathlib import Path

import pytest

from slurm_plugin.archive import Archive
from slurm_plugin.config import LocalHostSettings, SiteSettings, SlurmSettings
from slurm_plugin.errors import HostError
from slurm_plugin.hosts.local import LocalHost
from slurm_plugin.site import prepare_site, watch_writable

ARCHIVE = Archive(b"archive", "0" * 64)


async def test_a_root_is_put_in_place_and_found_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("home") / "root"
    settings = SiteSettings(slurm=SlurmSettings(host=LocalHostSettings(kind="local"), root=str(root)))
    host = LocalHost()
    try:
        for _ in range(2):
            site = await prepare_site(host, settings, archive=ARCHIVE, node="n", owner="node n of A")
        assert (root / "bin").is_dir()
        assert await host.read(site.archive) == b"archive"
        with pytest.raises(HostError, match=r"belongs to node n of A; this is node n of B\. Give each virtual node"):
            await prepare_site(host, settings, archive=ARCHIVE, node="n", owner="node n of B")
    finally:
        await host.close()


async def test_a_root_that_can_not_be_written_is_told_with_its_path(tmp_path: Path) -> None:
    root = tmp_path / "root"
    settings = SiteSettings(slurm=SlurmSettings(host=LocalHostSettings(kind="local"), root=str(root)))
    host = LocalHost()
    said: list[str] = []
    try:
        site = await prepare_site(host, settings, archive=ARCHIVE, node="n", owner="node n of A")
        (root / ".writable").mkdir()
        with pytest.raises(HostError, match=str(root)):
            await watch_writable(host, lambda: site, lambda: said.append("well"))
        assert not said
    finally:
        await host.close()
