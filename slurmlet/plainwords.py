"""What pydantic finds wrong with a file, in the words of whoever wrote the file: where it is, and what is allowed there. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from slurm_plugin.errors import shorten

_SHOWN = 120

# A pattern is for machines; this is what it stands for. tests/slurmlet/test_plainwords.py finds one that is missing.
PATTERNS: Mapping[str, str] = {
    r"^(https?://[^/\s]+/?|unix:/\S+)$": "http://HOST:PORT, https://HOST:PORT or unix:/PATH, without a path after it",
    r"^(https?://[^\s/]+(/\S*)?|unix:///\S+)$": "http://HOST:PORT, https://HOST:PORT or unix:///PATH",
    r"^https://[^/\s]+/?$": "https://HOST:PORT, without a path after it",
    r"^[A-Za-z0-9_][A-Za-z0-9_.@+-]*$": "a name of letters, digits and _ . @ + -, not beginning with one of the last four",
    r"^[A-Za-z0-9_*][A-Za-z0-9_.*+-]*$": "a name of letters, digits and _ . + -, or a * for part of it",
    r"^/[^\x00-\x1f]*$": "an absolute path, which begins with /",
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$": (
        "a name as Kubernetes has them: small letters, digits, - and ., beginning and ending with a letter or digit"
    ),
    r"^([A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$": "HOST:PORT, an IPv6 address in brackets",
}

_KINDS: Mapping[str, str] = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "string": "text (put quotes around it)",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping: lines of `key: value`",
    "model": "a mapping: lines of `key: value`",
    "path": "a path",
}

_Words = Callable[[Mapping[str, Any]], str]
_BOUNDS: Mapping[str, _Words] = {
    "missing": lambda _: "is missing, and is required",
    "union_tag_not_found": lambda _: "is missing, and is required",
    "extra_forbidden": lambda _: "unknown key",
    "union_tag_invalid": lambda c: f"must be {_either(c['expected_tags'])}",
    "literal_error": lambda c: f"must be {c['expected']}",
    "greater_than_equal": lambda c: f"must be {c['ge']:g} or more",
    "greater_than": lambda c: f"must be more than {c['gt']:g}",
    "less_than_equal": lambda c: f"must be {c['le']:g} or less",
    "less_than": lambda c: f"must be less than {c['lt']:g}",
    "too_short": lambda c: f"must have {c['min_length']} or more entries",
    "too_long": lambda c: f"must have {c['max_length']} entries or fewer",
    "string_too_short": lambda c: (
        "must not be empty" if c["min_length"] == 1 else f"must have {c['min_length']} characters"
    ),
    "string_too_long": lambda c: f"must have {c['max_length']} characters or fewer",
    "string_pattern_mismatch": lambda c: f"must be {PATTERNS.get(c['pattern'], 'something that fits ' + c['pattern'])}",
}
_SPEAK_FOR_THEMSELVES = frozenset({"missing", "extra_forbidden", "union_tag_not_found"})


def _either(tags: str) -> str:
    return tags.replace(", ", " or ")


def say(finding: ErrorDetails, document: object) -> str:
    """Return one line: the place as it is in ``document``, what is allowed there, and what is there."""
    kind = finding["type"]
    context = finding.get("ctx") or {}
    place = _place(finding["loc"], document)
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        key = str(context.get("discriminator", "")).strip("'")
        place = f"{place}.{key}" if place else key
    said = _message(finding, kind, context)
    shown = context.get("tag") if kind == "union_tag_invalid" else finding["input"]
    there = kind not in _SPEAK_FOR_THEMSELVES and isinstance(shown, (str, int, float, bool))
    return f"{place or 'the document'}: {said}" + (f" (it is {shorten(repr(shown), _SHOWN)})" if there else "")


def _message(finding: ErrorDetails, kind: str, context: Mapping[str, Any]) -> str:
    if kind in _BOUNDS:
        return _BOUNDS[kind](context)
    family = kind.partition("_")[0]
    if family in _KINDS and kind.endswith(("_type", "_parsing", "_from_float")):
        return f"must be {_KINDS[family]}"
    return finding["msg"].removeprefix("Value error, ")


def _place(parts: Sequence[str | int], document: object) -> str:
    """Return the path of keys as people write it: without pydantic's names of alternatives, which are not in the file."""
    place = ""
    for part in parts:
        if isinstance(document, Mapping) and part not in document and document.get("kind") == part:
            continue
        if part == "[key]":
            return f"the name {place.rpartition('.')[2]} in {place.rpartition('.')[0]}"
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
        document = _below(document, part)
    return place


def _below(document: object, part: str | int) -> object:
    if isinstance(document, Mapping):
        return document.get(part)
    if isinstance(document, (list, tuple)) and isinstance(part, int) and part < len(document):
        return document[part]
    return None
