"""The ``#SBATCH`` lines of a batch script → options. Pure.

Only sbatch reads them: slurmrestd and Slurm's library take a job's properties as such, and the script as an opaque text. So
the one form of a job that ``render`` makes is read here, by sbatch's own rules (``sbatch.1``; ``src/sbatch/opt.c``): the lines up to the
first command count, all of them are one list of arguments, double quotes take a backslash as "the next character as it
is", and of an option given twice the last counts.
"""

from collections.abc import Iterator, Mapping

from ..errors import SubmissionRejectedError

_MARK = "#SBATCH"
_SHORT = {
    "A": "account", "a": "array", "C": "constraint", "c": "cpus-per-task", "D": "chdir", "d": "dependency", "e": "error",
    "H": "hold", "J": "job-name", "L": "licenses", "N": "nodes", "n": "ntasks", "o": "output", "p": "partition",
    "q": "qos", "t": "time", "w": "nodelist", "x": "exclude",
}  # fmt: skip
# Options that stand alone; every other takes a value. ``exclusive`` may have one, after an equals sign only.
_FLAGS = frozenset({"hold", "requeue", "no-requeue", "exclusive", "contiguous", "overcommit", "reboot"})


def options(script: str) -> Mapping[str, str]:
    """Return the options of a script by their long names; a flag's value is "".

    Raises SubmissionRejectedError for what sbatch would refuse to read.
    """
    found: dict[str, str] = {}
    words = _words(script)
    for word in words:
        name, equals, value = _option(word)
        if not equals and name not in _FLAGS:
            value = value or next(words, "")
            if not value:
                raise SubmissionRejectedError(f"--{name} in the script has no value")
        found.pop(name, None)
        found[name] = value
    return found


def _option(word: str) -> tuple[str, bool, str]:
    """Split ``--name=value``, ``--name``, ``-Xvalue`` and ``-X`` into name, whether an equals sign stood there, value."""
    if word.startswith("--") and len(word) > 2:
        name, equals, value = word[2:].partition("=")
        return name, bool(equals), value
    if word.startswith("-") and word[1:2] in _SHORT:
        return _SHORT[word[1]], False, word[2:]
    raise SubmissionRejectedError(f"{word!r} in the script is not an option that can be given without sbatch")


def _words(script: str) -> Iterator[str]:
    for line in script.splitlines():
        if line.startswith(_MARK):
            yield from _split(line.removeprefix(_MARK))
        elif line.strip() and not line.startswith("#"):
            return


def _split(text: str) -> Iterator[str]:
    word, quote, characters = "", "", iter(text)
    begun = False
    for character in characters:
        if character == "\\" and quote != "'":
            word, begun = word + next(characters, ""), True
        elif quote:
            if character == quote:
                quote = ""
            else:
                word += character
        elif character in "\"'":
            quote, begun = character, True
        elif character == "#" and not begun:
            break
        elif character.isspace():
            if begun:
                yield word
            word, begun = "", False
        else:
            word, begun = word + character, True
    if quote:
        raise SubmissionRejectedError(f"a quote is not closed in the script's line #SBATCH{text}")
    if begun:
        yield word
