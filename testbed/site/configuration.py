"""The text of Slurm's configuration files for the emulated cluster. Pure: ports in, text out.

Files stand at their default place, /etc/slurm, so that no command needs SLURM_CONF. The choices that are not plain are
explained beside them; the option names are those of slurm.conf(5), gres.conf(5), cgroup.conf(5) and slurmdbd.conf(5).
"""

from __future__ import annotations

import dataclasses

from testbed.paths import Layout
from testbed.ports import ADDRESS, Port
from testbed.site import users
from testbed.site.mounts import GPU_DEVICE

CLUSTER = "testbed"
DIRECTORY = "/etc/slurm"
SLURM_CONF = f"{DIRECTORY}/slurm.conf"
JWT_KEY = f"{DIRECTORY}/jwt.key"
SPOOL = "/var/spool/slurmd"
STATE = "/var/spool/slurmctld"
DATABASE = "slurm_acct_db"
SMALL_QOS = "small"
"""A QOS that lets one user have two jobs and run one, to meet `QOSMaxSubmitJobPerUserLimit` and `QOSMaxJobsPerUserLimit`."""
SMALL_QOS_JOBS = 2
MANY = "many"
"""A partition whose CPUs are shared, so that more jobs run than the nodes have CPUs."""
MANY_SHARES = 8

LICENSES = "matlab:10,ansys:2"

_SRUN_PORTS = 300


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One emulated compute node: a slurmd of its own that claims these resources."""

    name: str
    features: str
    gpu_type: str = ""
    gpus: int = 0
    cpus: int = 16
    memory_mib: int = 32000


NODES = (
    *(Node(f"cn{number}", "cpu") for number in range(1, 5)),
    Node("gn1", "a100,nvlink", "a100", 4, memory_mib=64000),
    Node("gn2", "h100", "h100", 2, memory_mib=64000),
)
GPUS = sum(node.gpus for node in NODES)
_CPU_NODES = ",".join(node.name for node in NODES if not node.gpus)
_GPU_NODES = ",".join(node.name for node in NODES if node.gpus)


# Each job's slurmstepd looks at every process of the machine now and then, and all nodes are one.
_WATCHED = """\
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill"""
_CONSTRAINED = """\
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup,task/affinity
JobAcctGatherType=jobacct_gather/cgroup"""


def slurm_conf(layout: Layout, *, cgroups: bool = False) -> str:
    """Return slurm.conf: quick to start jobs and to forget them, but with the limits and checks of a real site.

    Jobs are kept to what they asked for by the kernel where there are ``cgroups``, else Slurm looks at their memory alone.
    """
    last_srun = layout.port(Port.SRUN, _SRUN_PORTS - 1)
    return f"""\
ClusterName={CLUSTER}
SlurmctldHost=localhost({ADDRESS})
SlurmctldPort={layout.port(Port.SLURMCTLD)}
SrunPortRange={layout.port(Port.SRUN)}-{last_srun}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={users.SLURM}
AuthType=auth/munge
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key={JWT_KEY}
StateSaveLocation={STATE}
SlurmdSpoolDir={SPOOL}/%n
# One for each emulated node, or the PMIx servers of two of them collide.
TmpFS=/tmp/%n
SlurmctldPidFile=/run/slurm/slurmctld.pid
SlurmdPidFile=/run/slurm/slurmd-%n.pid

# Nodes claim more than this machine has, and are told apart by port only.
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
SlurmdTimeout=60
SlurmctldTimeout=60
{_CONSTRAINED if cgroups else _WATCHED}
JobAcctGatherFrequency=task=10
MpiDefault=none

SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=0,preempt_youngest_first
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
EnforcePartLimits=ALL
JobRequeue=1
KillWait=5
CompleteWait=0
InactiveLimit=0
# Short, so that jobs leave squeue while a test watches and are then known to sacct only.
MinJobAge=60
MaxJobCount=50000
MaxArraySize=10001

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={ADDRESS}
AccountingStoragePort={layout.port(Port.SLURMDBD)}
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu,{",".join(f"gres/gpu:{node.gpu_type}" for node in NODES if node.gpus)}
AccountingStoreFlags=job_comment

Licenses={LICENSES}
GresTypes=gpu
{_node_lines(layout)}
PartitionName=DEFAULT DefaultTime=01:00:00 DefMemPerCPU=500
PartitionName=cpu Nodes={_CPU_NODES} Default=YES MaxTime=1-00:00:00 PriorityTier=10 PreemptMode=OFF
PartitionName=gpu Nodes={_GPU_NODES} MaxTime=2-00:00:00 PriorityTier=10 PreemptMode=OFF DefMemPerCPU=1000
PartitionName=low Nodes=ALL MaxTime=UNLIMITED PriorityTier=1 PreemptMode=CANCEL
PartitionName=high Nodes=ALL MaxTime=UNLIMITED PriorityTier=100 PreemptMode=OFF
# Eight jobs share a CPU: room for hundreds of jobs that only wait, as the benchmarks have them.
PartitionName={MANY} Nodes=ALL MaxTime=UNLIMITED PriorityTier=10 PreemptMode=OFF OverSubscribe=FORCE:{MANY_SHARES}
"""


def gres_conf() -> str:
    """Return gres.conf. `File=` is what makes slurmd set CUDA_VISIBLE_DEVICES; the devices are stand-ins (`mounts`)."""
    lines, first = ["AutoDetect=off"], 0
    for node in NODES:
        if node.gpus:
            files = f"{GPU_DEVICE}[{first}-{first + node.gpus - 1}]"
            lines.append(f"NodeName={node.name} Name=gpu Type={node.gpu_type} File={files}")
            first += node.gpus
    return "\n".join(lines) + "\n"


def cgroup_conf(version: str, *, cgroups: bool = False) -> str:
    """Return cgroup.conf; the plugin can be disabled from Slurm 23.02 on, and the word is an error before."""
    if cgroups:
        return "CgroupPlugin=cgroup/v1\nConstrainCores=yes\nConstrainRAMSpace=yes\nConstrainDevices=yes\n"
    return "" if version < "23.02" else "CgroupPlugin=disabled\n"


def slurmdbd_conf(layout: Layout) -> str:
    """Return slurmdbd.conf, which must be readable by SlurmUser only: it holds the database's password."""
    return f"""\
AuthType=auth/munge
AuthAltTypes=auth/jwt
AuthAltParameters=jwt_key={JWT_KEY}
DbdHost=localhost
DbdAddr={ADDRESS}
DbdPort={layout.port(Port.SLURMDBD)}
CommunicationParameters=NoInAddrAny
SlurmUser={users.SLURM}
PidFile=/run/slurm/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost={ADDRESS}
StoragePort={layout.port(Port.MARIADB)}
StorageUser={users.SLURM}
StoragePass={users.SLURM}
StorageLoc={DATABASE}
"""


def database_sql() -> str:
    """Return the statements that make the accounting database and its user; they may run again."""
    user = f"'{users.SLURM}'@'{ADDRESS}'"
    return (
        f"create database if not exists {DATABASE}; create user if not exists {user} identified by '{users.SLURM}'; "
        f"grant all on {DATABASE}.* to {user};"
    )


def accounting() -> tuple[tuple[str, ...], ...]:
    """Return the sacctmgr(1) commands that make the cluster, its accounts, QOS and associations, in order."""
    return (
        ("add", "cluster", CLUSTER),
        ("add", "qos", SMALL_QOS, "set", f"MaxSubmitJobsPerUser={SMALL_QOS_JOBS}", "MaxJobsPerUser=1"),
        *(("add", "account", name, f"Description={name}", "Organization=testbed") for name in users.ACCOUNTS),
        *(
            ("add", "user", person.name, f"Account={','.join(person.accounts)}", f"DefaultAccount={person.accounts[0]}")
            for person in users.PEOPLE
        ),
        ("modify", "account", "root", "set", f"qos+={SMALL_QOS}"),
    )


def _node_lines(layout: Layout) -> str:
    return "\n".join(
        f"NodeName={node.name} NodeHostname=localhost NodeAddr={ADDRESS} Port={layout.port(Port.SLURMD, index)} "
        f"CPUs={node.cpus} RealMemory={node.memory_mib} TmpDisk=1000 Feature={node.features}"
        + (f" Gres=gpu:{node.gpu_type}:{node.gpus}" if node.gpus else "")
        + " State=UNKNOWN"
        for index, node in enumerate(NODES)
    )
