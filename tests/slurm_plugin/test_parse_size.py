"""A large cluster is read quickly: it is asked for every half minute, on the agent's own event loop."""

import time

from slurm_plugin import parse
from slurm_plugin.cluster import Cluster
from slurm_plugin.nodelabels import labels

NODES, PARTITIONS = 5000, 20
# As Slurm 24.11 prints one node and one partition.
NODE = (
    "NodeName=n{i} Arch=x86_64 CoresPerSocket=64 CPUAlloc={alloc} CPUEfctv=128 CPUTot=128 CPULoad=0.{i} "
    "AvailableFeatures=zen4,rack{rack},ib ActiveFeatures=zen4,rack{rack},ib Gres=gpu:a100:4(S:0-1) GresDrain=N/A GresUsed=gpu:a100:{gpus}(IDX:0-{gpus}) "
    "NodeAddr=n{i} NodeHostName=n{i} Version=24.11.5 OS=Linux 5.14.0-427.13.1.el9_4.x86_64 #1 SMP PREEMPT_DYNAMIC Wed May 1 19:11:28 UTC 2024 "
    "RealMemory=515000 AllocMem={memory} FreeMem=400000 Sockets=2 Boards=1 State={state} ThreadsPerCore=1 TmpDisk=800000 Weight=1 Owner=N/A "
    "MCS_label=N/A Partitions={partitions} BootTime=2026-10-01T08:00:00 SlurmdStartTime=2026-10-01T08:02:00 LastBusyTime=2026-11-22T10:00:00 "
    "ResumeAfterTime=None CfgTRES=cpu=128,mem=515000M,billing=128,gres/gpu=4,gres/gpu:a100=4 AllocTRES=cpu={alloc},mem={memory}M CurrentWatts=0 AveWatts=0 "
)  # fmt: skip
PARTITION = (
    "PartitionName=p{i} AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default={default} QoS=N/A DefaultTime=01:00:00 "
    "DisableRootJobs=NO ExclusiveUser=NO ExclusiveTopo=NO GraceTime=0 Hidden=NO MaxNodes={most} MaxTime=2-00:00:00 MinNodes=0 LLN=NO "
    "MaxCPUsPerNode=UNLIMITED MaxCPUsPerSocket=UNLIMITED Nodes=n[1-5000] PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO "
    "OverTimeLimit=NONE PreemptMode=OFF State=UP TotalCPUs=640000 TotalNodes=5000 SelectTypeParameters=NONE JobDefaults=(null) DefMemPerNode=UNLIMITED "
    "MaxMemPerNode=UNLIMITED TRES=cpu=640000,mem=1G,node=5000,billing=640000"
)  # fmt: skip
STATES = ["IDLE", "MIXED", "ALLOCATED", "MIXED+PLANNED", "IDLE+DRAIN", "DOWN*+DRAIN+NOT_RESPONDING"]


def nodes() -> str:
    return "\n".join(
        NODE.format(
            i=i, rack=i // 40, alloc=i % 128, memory=1000 * (i % 500), gpus=i % 4, state=STATES[i % len(STATES)],
            partitions=",".join(f"p{(i + step) % PARTITIONS}" for step in range(3)),
        )
        for i in range(NODES)
    )  # fmt: skip


def partitions() -> str:
    lines = (
        PARTITION.format(i=i, default="YES" if i == 0 else "NO", most="UNLIMITED" if i else "64")
        for i in range(PARTITIONS)
    )
    return "\n".join(lines)


def test_twenty_partitions_and_five_thousand_nodes_are_read_in_less_than_a_fifth_of_a_second() -> None:
    node_text, partition_text = nodes(), partitions()

    def read() -> tuple[float, Cluster]:
        parse.node_states.cache_clear()
        parse.gres.cache_clear()
        begun = time.process_time()  # the machine's other work is not ours
        cluster = Cluster("c", "24.11.5", parse.partitions(partition_text, ("x",)), parse.nodes(node_text, ("x",)))
        return time.process_time() - begun, cluster

    seconds, cluster = min((read() for _ in range(3)), key=lambda each: each[0])
    assert (len(cluster.nodes), len(cluster.partitions)) == (NODES, PARTITIONS)
    assert cluster.nodes[7].gres == {("gpu", "a100"): 4}
    assert cluster.partitions[0].max_nodes == 64
    assert len(labels(cluster)) > PARTITIONS
    assert seconds < 0.2, f"{seconds:.3f} s"
