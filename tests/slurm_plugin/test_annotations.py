import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_plugin.annotations import Annotations, field_of, job_annotations, parse_annotations
from slurm_plugin.errors import InvalidAnnotationError, TranslationError, UnsupportedFieldError
from slurm_plugin.job import Dependency, Gres, JobId, JobState, JobStatus


def test_a_pod_without_annotations_of_ours_wishes_nothing() -> None:
    assert parse_annotations({}) == Annotations()
    assert parse_annotations({"kubernetes.io/limit-ranger": "x", "slurmlet.io": "x"}) == Annotations()


def test_every_annotation_of_ours_is_read() -> None:
    assert parse_annotations(
        {
            "slurmlet.io/partition": "gpu",
            "slurmlet.io/account": "physics",
            "slurmlet.io/qos": "long",
            "slurmlet.io/reservation": "course",
            "slurmlet.io/constraint": "[a100&nvlink]*2|h100",
            "slurmlet.io/licenses": "matlab@db:2,ansys",
            "slurmlet.io/time-limit": "2h",
            "slurmlet.io/nice": "100",
            "slurmlet.io/exclusive": "true",
            "slurmlet.io/gres": "gpu:a100:2,shard:1,craynetwork",
            "slurmlet.io/gpu-type": "a100",
            "slurmlet.io/requeue": "true",
            "slurmlet.io/wckey": "project",
            "slurmlet.io/cpus-per-task": "3",
            "slurmlet.io/mem-per-node": "4Gi",
            "slurmlet.io/priority": "7",
            "slurmlet.io/comment": "two words",
            "slurmlet.io/dependency": "afterok:first:second,after:third.x",
            "slurmlet.io/flags": "--hint=nomultithread --begin now+1",
        }
    ) == Annotations(
        partition="gpu",
        account="physics",
        qos="long",
        reservation="course",
        constraint="[a100&nvlink]*2|h100",
        licenses="matlab@db:2,ansys",
        time_limit_minutes=120,
        nice=100,
        exclusive=True,
        gres=(Gres("gpu", "a100", 2), Gres("shard", "", 1), Gres("craynetwork", "", 1)),
        gpu_type="a100",
        requeue=True,
        wckey="project",
        cpus_per_task=3,
        memory_mib=4096,
        priority=7,
        comment="two words",
        dependencies=(Dependency("afterok", ("first", "second")), Dependency("after", ("third.x",))),
        flags=("--hint=nomultithread", "--begin", "now+1"),
    )


def test_names_of_slurm_bridge_and_interlink_are_aliases() -> None:
    assert parse_annotations(
        {
            "slurmjob.slinky.slurm.net/account": "physics",
            "slurmjob.slinky.slurm.net/constraints": "a100",
            "slurmjob.slinky.slurm.net/exclusive": "false",
            "slurmjob.slinky.slurm.net/gres": "gres/gpu:a100=1",
            "slurmjob.slinky.slurm.net/licenses": "matlab:1",
            "slurmjob.slinky.slurm.net/partition": "gpu",
            "slurmjob.slinky.slurm.net/qos": "long",
            "slurmjob.slinky.slurm.net/reservation": "course",
            "slurmjob.slinky.slurm.net/timelimit": "5",
            "slurmjob.slinky.slurm.net/job-name": "mine",
            "slurmjob.slinky.slurm.net/cpu-per-task": "2",
            "slurmjob.slinky.slurm.net/priority": "9",
            "slurmjob.slinky.slurm.net/wckey": "w",
            "slurm-job.vk.io/flags": "--mem=1G --hint=nomultithread",
        }
    ) == Annotations(
        account="physics",
        constraint="a100",
        gres=(Gres("gpu", "a100", 1),),
        licenses="matlab:1",
        partition="gpu",
        qos="long",
        reservation="course",
        time_limit_minutes=5,
        comment="mine",
        cpus_per_task=2,
        priority=9,
        wckey="w",
        memory_mib=1024,
        flags=("--hint=nomultithread",),
    )


def test_what_the_agent_wrote_is_no_wish_where_it_was_copied() -> None:
    job = JobStatus(JobId("7"), JobState.RUNNING, partition="cpu", node_list="cn[1-2]")
    written = job_annotations(job.job_id, job, "alice")
    assert written == {
        "slurmlet.io/job-id": "7",
        "slurmlet.io/job-partition": "cpu",
        "slurmlet.io/job-nodes": "cn[1-2]",
        "slurmlet.io/job-user": "alice",
    }
    assert parse_annotations(written) == Annotations()
    assert job_annotations(JobId("8"), None) == {"slurmlet.io/job-id": "8"}


@pytest.mark.parametrize(
    "flags",
    [
        "-p gpu -A physics -q long -t 5 -C a100 -c 2 -L x:2 -J name",
        "-pgpu -Aphysics -qlong -t5 -Ca100 -c2 -Lx:2 -Jname",
        "--partition=gpu --account=physics --qos=long --time=5 --constraint=a100 --cpus-per-task=2 --licenses=x:2 --job-name=name",
        "--partition gpu --account physics --qos long --time 5 --constraint a100 --cpus-per-task 2 --licenses x:2 --job-name name",
    ],
)
def test_a_flag_that_an_annotation_can_say_is_that_wish(flags: str) -> None:
    assert parse_annotations({"slurm-job.vk.io/flags": flags}) == Annotations(
        partition="gpu", account="physics", qos="long", time_limit_minutes=5, constraint="a100", cpus_per_task=2,
        licenses="x:2", comment="name",
    )  # fmt: skip


def test_an_annotation_stands_above_a_flag_and_bare_flags_are_true() -> None:
    annotations = {"slurmlet.io/flags": "--partition=gpu --exclusive --requeue --nice", "slurmlet.io/partition": "cpu"}
    assert parse_annotations(annotations) == Annotations(partition="cpu", exclusive=True, requeue=True, nice=100)


def test_ours_wins_over_an_alias() -> None:
    both = {"slurmjob.slinky.slurm.net/partition": "cpu", "slurmlet.io/partition": "gpu"}
    assert parse_annotations(both).partition == "gpu"


def test_an_unknown_key_of_ours_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(InvalidAnnotationError, match="time-limit") as caught:
        parse_annotations({"slurmlet.io/queue": "gpu"})
    assert caught.value.field == "metadata.annotations[slurmlet.io/queue]"


def test_slurm_bridges_range_of_nodes_is_its_fewest() -> None:
    fewest, most = "slurmjob.slinky.slurm.net/min-nodes", "slurmjob.slinky.slurm.net/max-nodes"
    assert parse_annotations({fewest: "2", most: "4"}).nodes == 2
    assert parse_annotations({fewest: "2", "slurmlet.io/nodes": "3"}).nodes == 3
    assert parse_annotations({most: "4"}).nodes is None
    assert parse_annotations({fewest: "1"}).nodes is None
    with pytest.raises(InvalidAnnotationError, match="max-nodes"):
        parse_annotations({fewest: "4", most: "2"})


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("slurmjob.slinky.slurm.net/user-id", "site's decision"),
        ("slurmjob.slinky.slurm.net/group-id", "site's decision"),
        ("slurm-job.vk.io/pre-exec", "init container"),
        ("slurm-job.vk.io/singularity-options", "pods.runtime.options"),
        ("slurm-job.vk.io/flavor", "policy"),
    ],
)
def test_a_foreign_key_that_can_not_be_honoured_is_refused_with_its_reason(key: str, why: str) -> None:
    with pytest.raises(UnsupportedFieldError, match=why):
        parse_annotations({key: "1"})


@pytest.mark.parametrize("key", ["slurmjob.slinky.slurm.net/user-id", "slurm-job.vk.io/pre-exec"])
def test_a_foreign_key_that_means_nothing_here_is_refused_and_not_dropped(key: str) -> None:
    with pytest.raises(UnsupportedFieldError) as caught:
        parse_annotations({key: "1"})
    assert caught.value.field == f"metadata.annotations[{key}]"


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("5", 5), ("90", 90), ("5:00", 5), ("5:01", 6), ("0:30", 1), ("1:00:00", 60), ("12:30:00", 750), ("1-0", 1440), ("1-12", 2160),
        ("1-12:30", 2190), ("1-00:00:00", 1440), ("1-00:00:01", 1441), ("2h", 120), ("90m", 90), ("1h30m", 90), ("1d", 1440), ("30s", 1),
        ("1d2h3m4s", 1564),
    ],
)  # fmt: skip
def test_every_form_of_a_time_limit_is_minutes_rounded_up(text: str, minutes: int) -> None:
    assert parse_annotations({"slurmlet.io/time-limit": text}).time_limit_minutes == minutes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("time-limit", v)
            for v in ["", "0", "0:00", "-5", "1.5h", "2h 5m", "UNLIMITED", "1:2:3:4", "5m2h", "٣", "9999999d", "5\n"]
        ),
        *(("partition", v) for v in ["", "-p", "a b", "a\nb", "a\x00", "a\u2028b", "\u200b"]),
        *(("nice", v) for v in ["", "1.5", "ten", "2147483646", "--1"]),
        *(("exclusive", v) for v in ["", "yes", "True", "1"]),
        *(("gres", v) for v in ["", "gpu:", "gpu:0", "gpu:a100:2,", "gpu:a b", "2", "gpu:a100:x", "gpu:99999999"]),
        *(("gpu-type", v) for v in ["", "a:1", "a,b", "-x", "a/b"]),
        *(("priority", v) for v in ["", "0", "-1", "4294967294"]),
        *(("cpus-per-task", v) for v in ["", "0", "1.5", "many"]),
        *(("mem-per-node", v) for v in ["", "0", "0K", "1.5G", "4E", "all"]),
        *(("constraint", v) for v in ["", "-x", "a b", 'a"b', "a\nb"]),
        *(("licenses", v) for v in ["", "a:", "2", "a b", "a:1;"]),
        *(
            ("dependency", v)
            for v in ["", "afterok", "afterok:", "afterok:A", "singleton", "afterok:a?after:b", "expand:a"]
        ),
        *(("dependency", v) for v in [",".join(["after:a"] * 65), "afterok:../x", "after:a+5"]),
        *(("flags", v) for v in ["", "script.sh", "--comment='x", "--comment=a\nb", "--x\x1b"]),
    ],
)
def test_a_value_that_its_key_does_not_take_is_refused_by_its_path(name: str, value: str) -> None:
    with pytest.raises(InvalidAnnotationError, match="expected") as caught:
        parse_annotations({f"slurmlet.io/{name}": value})
    assert caught.value.field == field_of(name) == f"metadata.annotations[slurmlet.io/{name}]"


def test_an_error_names_the_alias_that_was_used() -> None:
    with pytest.raises(InvalidAnnotationError) as caught:
        parse_annotations({"slurmjob.slinky.slurm.net/timelimit": "soon"})
    assert caught.value.field == "metadata.annotations[slurmjob.slinky.slurm.net/timelimit]"


NAMES = [
    "partition",
    "comment",
    "mem-per-node",
    "dependency",
    "priority",
    "constraint",
    "licenses",
    "time-limit",
    "nice",
    "exclusive",
    "gres",
    "gpu-type",
    "flags",
]


@given(st.sampled_from(NAMES), st.text())
def test_no_value_carries_a_control_character_or_raises_anything_unnamed(name: str, value: str) -> None:
    try:
        wishes = parse_annotations({f"slurmlet.io/{name}": value})
    except TranslationError:
        return
    texts = [wishes.partition, wishes.constraint, wishes.licenses, wishes.gpu_type, *wishes.flags]
    assert all(character.isprintable() or character == "\t" for text in texts for character in text)
