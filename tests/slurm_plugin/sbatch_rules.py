"""How sbatch reads the ``#SBATCH`` lines of a script: ``src/sbatch/opt.c``, ``_get_argument`` and ``_opt_batch_script``.

Not a shell: a backslash takes the next character as it is, inside quotes too; ``#`` outside quotes ends a line; the
words of all lines are one list of arguments; reading stops at the first line that is neither blank nor a comment.
"""

SPACES = " \t\n\v\f\r"


class UnmatchedQuoteError(Exception):
    """A line that sbatch refuses as a whole script."""


def words_of(line: str) -> list[str]:
    """Return the arguments that sbatch reads in what follows ``#SBATCH``."""
    words, position = [], 0
    while True:
        while position < len(line) and line[position] in SPACES:
            position += 1
        if position == len(line) or line[position] == "#":
            return words
        word, position = _word(line, position)
        words.append(word)


def _word(line: str, position: int) -> tuple[str, int]:
    word, quote = "", ""
    while position < len(line) and (quote or line[position] not in SPACES):
        character = line[position]
        if character == "\\":
            position += 1
            word += line[position : position + 1]
        elif quote:
            if character == quote:
                quote = ""
            else:
                word += character
        elif character in "\"'":
            quote = character
        elif character == "#":
            position = len(line)
            break
        else:
            word += character
        position += 1
    if quote:
        raise UnmatchedQuoteError(line)
    return word, position


def arguments_of(script: str) -> list[str]:
    """Return all arguments that sbatch reads in a script."""
    result: list[str] = []
    for line in script.split("\n")[1:]:
        if line.startswith("#SBATCH"):
            result += words_of(line.removeprefix("#SBATCH"))
        elif line.strip() and not line.startswith("#"):
            break
    return result
