import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from slurm_plugin.errors import ConfigurationError
from vkubelet.credentials import load_access


def kubeconfig(path: Path, *command: str) -> Path:
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": command[0], "args": [*command[1:]]}
    file = path / "config"
    file.write_text(
        json.dumps(
            {
                "apiVersion": "v1", "kind": "Config", "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {"exec": plugin}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )  # fmt: skip
    return file


async def test_an_exec_plugins_token_is_the_credential(tmp_path: Path) -> None:
    status = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "t0"}}
    access = await load_access(kubeconfig(tmp_path, "echo", json.dumps(status)), None)
    assert await access.headers() == {"authorization": "Bearer t0"}


async def test_an_exec_plugin_that_hangs_is_given_up_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = kubeconfig(tmp_path, "sleep", "300")
    start, started = asyncio.create_subprocess_exec, []

    async def remember(*argv: str, **options: Any) -> asyncio.subprocess.Process:
        started.append(await start(*argv, **options))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", remember)
    with pytest.raises(ConfigurationError, match=r"the exec plugin of .*/config gave no credential within 0\.5 s"):
        await load_access(file, None, seconds=0.5)
    for plugin in started:  # the official client leaves it to itself; on a busy machine it has not begun
        plugin.kill()
        await plugin.communicate()
