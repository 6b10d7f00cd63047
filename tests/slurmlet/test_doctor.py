"""What `slurmlet doctor` says of files that are at hand; the ways to real parts are tried in tests/e2e/test_doctor.py."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from slurmlet.config import Configuration, SidecarConfiguration, load_either
from slurmlet.doctor import examine
from tests.sidecar.calls import authority

TOKEN = "of-this-test"
LOCAL = {"host": {"kind": "local"}}
AWAY = {"host": {"kind": "ssh", "address": "127.0.0.1", "port": 9, "user": "alice", "known_hosts_file": "/dev/null"}}
"""A login node that does not answer: the site itself is not looked at."""


def written(directory: Path, content: dict[str, Any]) -> Path:
    path = directory / "slurmlet.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"slurm": LOCAL}, Configuration),
        ({"interlink": {"url": "unix:///run/plugin.sock", "directory": "/var/lib/pods"}}, Configuration),
        ({"slurm": LOCAL, "serve": {"unix_socket": "/run/sidecar.sock"}}, SidecarConfiguration),
        ({"slurm": LOCAL, "interlink": {"unix_socket": "/run/sidecar.sock"}}, SidecarConfiguration),
    ],
    ids=["agent", "agent of a plugin", "sidecar", "interLink's plugin"],
)
def test_whose_file_it_is_shows_in_its_sections(
    content: dict[str, Any], kind: type[Configuration | SidecarConfiguration], tmp_path: Path
) -> None:
    assert type(load_either(written(tmp_path, content))) is kind


async def said(configuration: Configuration | SidecarConfiguration) -> dict[str, str]:
    """Every finding of the configuration's own sections, by what it is of."""
    found = {finding.what: str(finding) async for finding in examine(configuration)}
    return {what: line for what, line in found.items() if not what.startswith("node ")}


async def test_what_a_sidecar_is_served_with_is_looked_at(tmp_path: Path) -> None:
    own, other = (authority(tmp_path / name, name).pair for name in ("own", "other"))
    (tmp_path / "tokens").write_text(f"{TOKEN}\n")
    (tmp_path / "none").touch()
    pair = {"certificate_file": str(own.certificate), "key_file": str(own.key)}
    serve: dict[str, Any] = {
        "certificate": pair,
        "client_ca_file": str(own.certificate),
        "token_file": str(tmp_path / "tokens"),
        "unix_socket": str(tmp_path / "sidecar.sock"),
    }
    good = await said(SidecarConfiguration.model_validate({"slurm": AWAY, "serve": serve}))
    assert set(good) == {"serve.certificate", "serve.token_file", "serve.unix_socket"}
    assert all(line.startswith("ok ") for line in good.values()), good
    bad = serve | {
        "certificate": pair | {"key_file": str(other.key)},
        "token_file": str(tmp_path / "none"),
        "unix_socket": str(tmp_path / "gone" / "sidecar.sock"),
    }
    told = await said(SidecarConfiguration.model_validate({"slurm": AWAY, "serve": bad}))
    assert all(line.startswith("FAIL") for line in told.values()), told
    assert str(other.key) in told["serve.certificate"]
    assert f"{tmp_path}/none: holds no token" in told["serve.token_file"]
    assert f"{tmp_path}/gone: No such file or directory" in told["serve.unix_socket"]


@pytest.fixture
async def plugin(tmp_path: Path) -> AsyncIterator[Path]:
    """The socket of what answers a plugin's ping, to those who know the token."""

    async def status(request: web.Request) -> web.Response:
        known = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        return web.json_response({"status": "OK"}) if known else web.Response(status=401)

    application = web.Application()
    application.router.add_get("/status", status)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "plugin.sock")).start()
    yield tmp_path / "plugin.sock"
    await runner.cleanup()


async def test_the_way_to_an_interlink_plugin_is_tried_and_no_site_looked_for(plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "old").write_text("which it believed once")
    interlink = {"url": f"unix://{plugin}", "directory": str(tmp_path), "token_file": str(tmp_path / "token")}
    kubeconfig = {"kubeconfig": str(tmp_path / "none")}

    def configured(**other: str) -> Configuration:
        return Configuration.model_validate({"kubernetes": kubeconfig, "interlink": interlink | other})

    where = f"interLink at unix://{plugin}"
    good = await said(configured())
    assert set(good) == {"API server", "interlink.directory", where}
    assert good[where].startswith("ok ")
    assert good["interlink.directory"].startswith("ok ")
    refused = (await said(configured(token_file=str(tmp_path / "old"))))[where]
    assert f"does not believe our token ({tmp_path}/old)" in refused
    away = await said(configured(url=f"unix://{tmp_path}/nobody", directory=str(tmp_path / "gone")))
    assert "can't be reached" in away[f"interLink at unix://{tmp_path}/nobody"]
    assert f"{tmp_path}/gone: No such file" in away["interlink.directory"]
