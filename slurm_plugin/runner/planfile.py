"""The plan's file: read at the start, and again when the pod was edited, for the provider then has replaced it."""

import json

from slurm_plugin.jobdir import JobDir

from .plan import Plan, plan_from_json


def read_plan(directory: JobDir) -> Plan:
    """Read what to run. OSError, ValueError, KeyError, TypeError: it is missing or broken."""
    with open(directory.plan, encoding="utf-8") as stream:
        return plan_from_json(json.load(stream))
