import subprocess

from slurm_plugin.runner.proctree import Remembered


def test_a_process_is_remembered_while_it_lives():
    remembered = Remembered()
    assert remembered.living() == 0
    with subprocess.Popen(["sleep", "60"]) as process:
        remembered.keep(process.pid)
        assert remembered.living() == process.pid
        process.kill()
    assert remembered.living() == 0


def test_another_process_of_its_number_is_not_taken_for_it():
    with subprocess.Popen(["sleep", "60"]) as process:
        remembered = Remembered()
        remembered.keep(process.pid)
        remembered._since -= 1  # as if the number had been another's
        assert remembered.living() == 0
        process.kill()
