"""Raw arguments of sbatch in an annotation → wishes that have an annotation of their own, and the rest. Pure.

An argument that says what an annotation can say is that wish, whatever way it was written, so that the same policy
decides about it and manifests written for interLink keep their meaning. What the protocols stand on, what makes several
jobs of one, and what asks for resources past the pod's own can't be had at all: it would be past the ceilings. Only the
rest is raw.

sbatch reads its arguments by getopt_long(3): a long name may be cut short, a short one may stand in a group.
"""

from dataclasses import dataclass

# The annotations that arguments stand for, by their names.
_LONG = {
    "partition": "partition", "account": "account", "qos": "qos", "wckey": "wckey", "reservation": "reservation",
    "constraint": "constraint", "licenses": "licenses", "time": "time-limit", "cpus-per-task": "cpus-per-task",
    "mem": "mem-per-node", "nice": "nice", "priority": "priority", "comment": "comment", "job-name": "comment",
    "gres": "gres", "exclusive": "exclusive", "requeue": "requeue",
}  # fmt: skip
_SHORT = {
    "p": "partition", "A": "account", "q": "qos", "C": "constraint", "L": "licenses", "t": "time", "c": "cpus-per-task",
    "J": "job-name",
}  # fmt: skip
_BARE = frozenset({"exclusive", "requeue"})
_DEFAULTS = {"nice": "100"}  # sbatch(1): the value of --nice without one

# What the protocols stand on, or what makes of one job several or none.
_OURS = (
    "array", "chdir", "clusters", "cluster-constraint", "container", "container-id", "dependency", "error", "export",
    "export-file", "get-user-env", "gid", "help", "ignore-pbs", "input", "job-name", "kill-on-invalid-dep", "no-requeue",
    "open-mode", "output", "parsable", "requeue", "signal", "test-only", "uid", "usage", "version", "wait", "wrap",
)  # fmt: skip
# What asks for resources in another way than the pod's own, which ceilings are checked on.
_RESOURCES = (
    "core-spec", "cores-per-socket", "cpus-per-gpu", "exclusive", "extra-node-info", "gpus", "gpus-per-node",
    "gpus-per-socket", "gpus-per-task", "mem", "mem-per-cpu", "mem-per-gpu", "mincpus", "nodes", "ntasks",
    "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node", "ntasks-per-socket", "overcommit", "oversubscribe",
    "sockets-per-node", "thread-spec", "threads-per-core", "time-min", "tres-per-job", "tres-per-task", "use-min-nodes",
)  # fmt: skip
_REFUSED_LONG = (*_OURS, *_RESOURCES, *_LONG)
_REFUSED_SHORT = "aDMdeihoJWV" + "BGNnS" + "".join(_SHORT)
_BARE_SHORT = "HIkOQsv"  # they take no value: another option may follow in the same word; O and s are refused


@dataclass(frozen=True, slots=True)
class RawFlags:
    """``wishes``: values by the name of their annotation. ``words``: what is left for sbatch, one word each."""

    wishes: dict[str, str]
    words: tuple[str, ...]


def read_flags(words: tuple[str, ...]) -> RawFlags:
    """Tell wishes from raw flags. Raises ValueError for an argument that nobody may set, and for a missing value."""
    wishes: dict[str, str] = {}
    kept: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, value = _option(word)
        if name not in _LONG:
            if _refused(word):
                raise ValueError(f"{word!r} can't be set here; ask by the pod's resources and by annotations")
            kept.append(word)
            continue
        if value is None and name not in _BARE | set(_DEFAULTS):
            if not rest:
                raise ValueError(f"{word!r} lacks its value")
            value = rest.pop(0)
        wishes[_LONG[name]] = _DEFAULTS.get(name, "true") if value is None else value
    return RawFlags(wishes, tuple(kept))


def _option(word: str) -> tuple[str, str | None]:
    """Return the long name that a word means, "" for one that has no annotation, and the value within the word."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        return name, value if equals else None
    if word.startswith("-") and word[1:2] in _SHORT:
        return _SHORT[word[1]], word[2:] or None
    return "", None


def _refused(word: str) -> bool:
    """Whether a word is an option that may not be set. A word that is another option's value is looked at as well."""
    if word.startswith("--"):
        name = word[2:].partition("=")[0]
        return not name or any(refused.startswith(name) for refused in _REFUSED_LONG)
    if not word.startswith("-"):
        return False
    behind = word[1:].lstrip(_BARE_SHORT)
    group = word[1 : len(word) - len(behind)]
    return not set(group).isdisjoint("Os") or behind[:1] in tuple(_REFUSED_SHORT)
