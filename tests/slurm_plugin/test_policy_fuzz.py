"""The policy can't be escaped: whatever a pod says, its script has no directive that its namespace may not have."""

import shlex

from hypothesis import given, settings
from hypothesis import strategies as st

from slurm_plugin.annotationvalues import features_in, licenses_in
from slurm_plugin.errors import TranslationError
from slurm_plugin.render import render
from slurm_plugin.translate import translate

from .manifests import container, make_pod, make_site

RULE = {
    "partitions": ["cpu", "gpu"], "accounts": ["physics"], "qos": ["normal"], "reservations": ["course"], "wckeys": ["w"],
    "constraints": ["a100", "cpu"], "licenses": ["matlab"], "max_cpus": 4, "max_memory_mib": 2048, "max_gpus": 1,
    "max_time_limit_minutes": 60, "max_priority": 10, "priority_classes": {"urgent": {"nice": -5, "qos": "express"}},
}  # fmt: skip
ALLOWED = {
    "partition": {"cpu", "gpu"}, "account": {"physics"}, "qos": {"normal", "express"}, "reservation": {"course"}, "wckey": {"w"},
}  # fmt: skip
# Every option that any script of ours may have; an unknown one is a raw flag.
OURS = {
    "nodes", "ntasks", "cpus-per-task", "mem", "tmp", "gres", "time", "partition", "account", "qos", "reservation", "constraint",
    "licenses", "wckey", "comment", "priority", "nice", "exclusive", "job-name", "chdir", "output", "open-mode", "export", "requeue",
    "no-requeue", "dependency", "signal",
}  # fmt: skip
NAMES = ["partition", "account", "qos", "wckey", "reservation", "constraint", "licenses", "time-limit", "cpus-per-task", "mem-per-node",
         "nice", "priority", "comment", "dependency", "exclusive", "gres", "gpu-type", "requeue", "flags"]  # fmt: skip
OPTIONS = ["partition", "account", "uid", "gid", "qos", "nodes", "ntasks", "mem", "mem-per-cpu", "cpus-per-task", "gres", "gpus", "time",
           "exclusive", "export", "wrap", "array", "dependency", "job-name", "chdir", "output", "hint", "begin", "nice", "priority"]  # fmt: skip
VALUES = st.sampled_from(
    ["cpu", "gpu", "low", "root", "physics", "normal", "express", "1", "4", "5", "0", "-1", "61", "99", "1-0", "ALL", "true",
     "a100", "h100|a100", "a100&cpu", "matlab:1", "ansys", "gpu:1", "gpu:2", "gpu:a100:2", "shard:1", "mps", "2049", "2G", "afterok:a"]
)  # fmt: skip
WORDS = st.one_of(
    VALUES,
    st.builds("--{}={}".format, st.sampled_from(OPTIONS), VALUES),
    st.builds("--{}".format, st.sampled_from([*OPTIONS, *(option[:-1] for option in OPTIONS)])),
    st.builds("-{}{}".format, st.sampled_from("pAqCLtcJnNGdDMaHkIOsQvWwx"), st.one_of(st.just(""), VALUES)),
    st.text(alphabet="-=HIkOsqpANct1 \"'\\#%x", max_size=12),
)
FLAGS = st.lists(WORDS, max_size=3).map(lambda words: " ".join(shlex.quote(word) for word in words))
ANNOTATIONS = st.dictionaries(st.sampled_from(NAMES), st.one_of(VALUES, FLAGS, st.text(max_size=10)), max_size=3)
AMOUNTS = st.dictionaries(
    st.sampled_from(["cpu", "memory", "nvidia.com/gpu", "amd.com/gpu"]), st.sampled_from(["1", "2", "5", "500m", "1Gi", "3Gi"]), max_size=3
)  # fmt: skip
SELECTORS = st.dictionaries(
    st.sampled_from([f"slurmlet.io/{label}" for label in ("partition-low", "partition-gpu", "feature-h100", "feature-a100")]),
    st.just("true"), max_size=2,
)  # fmt: skip


def directives(script: str) -> list[tuple[str, str]]:
    """The options that sbatch reads, raw flags among them, by getopt's rules for the long ones."""
    words = [word for line in script.splitlines() if line.startswith("#SBATCH ") for word in shlex.split(line[8:])]
    return [(word.partition("=")[0].removeprefix("--"), word.partition("=")[2]) for word in words]


def minutes(text: str) -> int:
    return int(text)


@settings(max_examples=300, deadline=None)
@given(ANNOTATIONS, FLAGS, AMOUNTS, SELECTORS, st.sampled_from(["", "urgent", "other"]), st.booleans())
def test_no_pod_yields_a_directive_that_the_policy_forbids(
    annotations: dict[str, str], flags: str, amounts: dict[str, str], selector: dict[str, str], urgency: str, raw: bool
) -> None:
    named = {f"slurmlet.io/{name}": value for name, value in annotations.items()} | {"slurm-job.vk.io/flags": flags}
    pod = make_pod(
        container("main", resources={"limits": amounts}), annotations=named, nodeSelector=selector, priorityClassName=urgency
    )  # fmt: skip
    try:
        job = translate(pod, make_site(policy=[RULE | {"raw_flags": raw}]), {"a": "7"}).job
        found = directives(render(job))
    except TranslationError:
        return
    # What stands last counts for sbatch; ours all stand behind the raw flags.
    final = dict(found)
    for option, allowed in ALLOWED.items():
        assert final.get(option, next(iter(allowed))) in allowed
        assert all(value in allowed for name, value in found if name == option)
    assert int(final["cpus-per-task"]) <= 4
    assert int(final.get("mem", "0M")[:-1]) <= 2048
    assert minutes(final["time"]) <= 60
    assert final["nodes"] == final["ntasks"] == "1"
    assert features_in(final.get("constraint", "")) <= {"a100", "cpu"}
    assert licenses_in(final["licenses"]) <= {"matlab"} if "licenses" in final else True
    assert sum(int(part.rsplit(":", 1)[-1]) for part in final.get("gres", "gpu:0").split(",")) <= 1
    assert int(final.get("priority", "1")) <= 10
    assert int(final.get("nice", "0")) >= (-5 if urgency == "urgent" and "slurmlet.io/nice" not in named else 0)
    assert "exclusive" not in final
    assert "requeue" not in final
    assert final["dependency"] in {"singleton", "afterok:7,singleton"}
    assert (final["export"], final["job-name"], final["chdir"]) == ("NONE", job.name, job.directory)
    if not raw:
        assert {name for name, _ in found} <= OURS
        assert job.extra_arguments == ()
    for word in job.extra_arguments:
        name = word[2:].partition("=")[0]
        assert not (
            word.startswith("--") and any(option.startswith(name) for option in OURS | {"uid", "gid", "array", "wrap"})
        )
