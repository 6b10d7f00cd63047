"""Raw arguments of sbatch in an annotation → wishes that have an annotation of their own, and the rest. Pure.

An argument that says what an annotation can say is that wish, whatever way it was written, so that the same policy
decides about it and manifests written for interLink keep their meaning. Of the rest a few are raw: those that say when,
or on which of the nodes that the pod may have anyway, and how on these. All others can't be had at all, also those
that Slurm may yet invent: they ask for resources past the ceilings (``--gpus``, ``--bb``), undo what the protocols stand on,
make several jobs of one, read files of the login node (``--nodefile``) or are an administrator's (``--reboot``).

sbatch reads its arguments by getopt_long(3): a short name may stand in a group. A long name that is cut short is not known here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .annotationvalues import constraint, features_in, nodes

# The annotations that long arguments stand for, and the long arguments that short ones are.
_LONG = {
    "partition": "partition", "account": "account", "qos": "qos", "wckey": "wckey", "reservation": "reservation",
    "constraint": "constraint", "licenses": "licenses", "time": "time-limit", "cpus-per-task": "cpus-per-task",
    "mem": "mem-per-node", "nice": "nice", "priority": "priority", "comment": "comment", "job-name": "comment",
    "gres": "gres", "exclusive": "exclusive", "requeue": "requeue",
}  # fmt: skip
_SHORT = {
    "p": "partition", "A": "account", "q": "qos", "C": "constraint", "L": "licenses", "t": "time", "c": "cpus-per-task",
    "J": "job-name", "w": "nodelist", "x": "exclude",
}  # fmt: skip
_BARE = frozenset({"exclusive", "requeue"})
_DEFAULTS = {"nice": "100"}  # sbatch(1): the value of --nice without one

# They take no value.
_RAW_BARE = frozenset({"contiguous", "hold", "no-kill", "quiet", "verbose"})
_RAW = frozenset({
    "begin", "cpu-freq", "deadline", "distribution", "gres-flags", "hint", "mail-type", "mail-user", "mem-bind",
    "switches", "tmp", "wait-all-nodes",
})  # fmt: skip
_RAW_SHORT_BARE = "HkQv"
_RAW_SHORT = "bm"
# Their values are looked at, so each is kept as one word. A list of nodes with a slash would be a file of the login node.
_OF_FEATURES = frozenset({"batch", "prefer"})
_OF_NODES = frozenset({"exclude", "nodelist"})
_VALUED = _OF_FEATURES | _OF_NODES | set(_LONG)


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
        if name not in _VALUED and not _passes(word):
            raise ValueError(f"{word!r} can't be set here; ask by the pod's resources and by annotations")
        if name in _VALUED and value is None and name not in _BARE | set(_DEFAULTS):
            if not rest:
                raise ValueError(f"{word!r} lacks its value")
            value = rest.pop(0)
        if name in _LONG:
            wishes[_LONG[name]] = _DEFAULTS.get(name, "true") if value is None else value
        elif name in _VALUED:
            kept.append(f"--{name}={(constraint if name in _OF_FEATURES else nodes)(value or '')}")
        else:
            kept.append(word)
    return RawFlags(wishes, tuple(kept))


def _option(word: str) -> tuple[str, str | None]:
    """Return the long name that a word means, "" for another short one, and the value within the word."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        return name, value if equals else None
    if word.startswith("-") and word[1:2] in _SHORT:
        return _SHORT[word[1]], word[2:] or None
    return "", None


def _passes(word: str) -> bool:
    """Whether a word is a raw flag, or no option. A word that is another option's value is looked at as well."""
    if word.startswith("--"):
        name, equals, _ = word[2:].partition("=")
        return name in _RAW or (name in _RAW_BARE and not equals)
    if not word.startswith("-"):
        return True
    behind = word[1:].lstrip(_RAW_SHORT_BARE)
    return len(word) > 1 and (not behind or behind[0] in _RAW_SHORT)


def features_of(words: Iterable[str]) -> Iterator[str]:
    """Yield the features that raw flags ask for."""
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        if name in _OF_FEATURES:
            yield from features_in(value)


def means_whole_cores(words: Iterable[str]) -> bool:
    """Whether a raw flag may make of each CPU that is asked for a whole core, with all its threads (sbatch(1), ``--hint``)."""
    return any(word.partition("=")[0] == "--hint" for word in words)
