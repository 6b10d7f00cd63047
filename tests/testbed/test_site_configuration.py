import re
from pathlib import Path

import pytest

from testbed.paths import Layout
from testbed.site import configuration

LAYOUT = Layout(cache=Path("/cache"), state=Path("/state"), port_base=30000)
SLURM_CONF = configuration.slurm_conf(LAYOUT)


def test_every_port_is_one_of_the_testbeds() -> None:
    ports = re.findall(r"Port(?:Range)?=(\d+)", SLURM_CONF + configuration.slurmdbd_conf(LAYOUT))
    assert ports
    assert all(30000 <= int(port) < 30500 for port in ports)
    assert len(set(re.findall(r"NodeName=.* Port=(\d+)", SLURM_CONF))) == len(configuration.NODES)


@pytest.mark.parametrize("text", [SLURM_CONF, configuration.slurmdbd_conf(LAYOUT)])
def test_no_value_is_empty_which_slurm_takes_for_fatal(text: str) -> None:
    assert not re.search(r"=(\s|$)", text, re.MULTILINE)


def test_gpu_nodes_have_devices_of_their_own() -> None:
    assert configuration.gres_conf().splitlines() == [
        "AutoDetect=off",
        "NodeName=gn1 Name=gpu Type=a100 File=/dev/gpu[0-3]",
        "NodeName=gn2 Name=gpu Type=h100 File=/dev/gpu[4-5]",
    ]
    assert configuration.GPUS == 6


def test_cgroup_plugin_is_disabled_only_where_slurm_knows_the_word() -> None:
    assert configuration.cgroup_conf("22.05") == ""
    assert configuration.cgroup_conf("24.11") == "CgroupPlugin=disabled\n"


def test_the_kernel_keeps_jobs_to_their_resources_where_it_is_asked_to() -> None:
    text = configuration.slurm_conf(LAYOUT, cgroups=True)
    assert "TaskPlugin=task/cgroup,task/affinity\n" in text
    assert "OverMemoryKill" not in text
    assert "ConstrainRAMSpace=yes\n" in configuration.cgroup_conf("22.05", cgroups=True)
    assert len(re.findall("ProctrackType=", text)) == len(re.findall("ProctrackType=", SLURM_CONF)) == 1


def test_accounts_are_made_before_the_users_in_them() -> None:
    commands = configuration.accounting()
    kinds = [command[1] for command in commands if command[0] == "add"]
    assert kinds == sorted(kinds, key=["cluster", "qos", "account", "user"].index)
    assert ("add", "user", "alice", "Account=physics,chemistry", "DefaultAccount=physics") in commands
