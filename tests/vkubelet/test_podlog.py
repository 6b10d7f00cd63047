"""Log lines: one a record, in text and as JSON, with what they are about."""

import json
import logging
import sys

from vkubelet.podlog import Formatter, JsonFormatter


def record(message: str, **about: str) -> logging.LogRecord:
    made = logging.LogRecord("vkubelet.pods", logging.WARNING, "f.py", 1, message, None, None)
    made.created, made.msecs = 0.25, 250.0
    for key, value in about.items():
        setattr(made, key, value)
    return made


def test_a_line_of_text_ends_in_what_it_is_about() -> None:
    said = Formatter().format(record("it\nends", namespace="ns", pod="p", uid="u", job_id=""))
    assert said == "1970-01-01T00:00:00.250Z WARNING it\\nends namespace=ns pod=p uid=u"


def test_a_json_line_has_the_same_keys_and_the_traceback() -> None:
    what = record("it\nends", namespace="ns", pod="p", uid="u", job_id="7")
    try:
        int("x")
    except ValueError:
        what.exc_info = sys.exc_info()
    line = JsonFormatter().format(what)
    said = json.loads(line)
    assert "\n" not in line
    assert said.pop("error").endswith("literal for int() with base 10: 'x'")
    assert said == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "WARNING",
        "logger": "vkubelet.pods",
        "message": "it\nends",
        "namespace": "ns",
        "pod": "p",
        "uid": "u",
        "job_id": "7",
    }
