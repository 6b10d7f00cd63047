"""The administrator's kubectl: what goes wrong with it is an error of the testbed's, in its own words."""

from pathlib import Path

import pytest

from testbed.errors import TestbedError
from testbed.kubernetes.account import Kubectl


def kubectl(directory: Path, script: str, **options: float) -> Kubectl:
    program = directory / "kubectl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return Kubectl(program, directory / "kubeconfig", **options)


def test_what_it_prints_is_returned(tmp_path: Path) -> None:
    assert kubectl(tmp_path, 'echo "$@"')("get", "nodes") == f"--kubeconfig={tmp_path}/kubeconfig get nodes\n"


def test_its_failure_is_told_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match="`kubectl get nodes` exited with 1: no such thing"):
        kubectl(tmp_path, "echo no such thing >&2; exit 1")("get", "nodes")


def test_one_that_does_not_end_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match=r"`kubectl get nodes` did not end within 0.2 s"):
        kubectl(tmp_path, "exec sleep 60", seconds=0.2)("get", "nodes")
