import subprocess
import sys
import time

from slurm_plugin.runner.proctree import Remembered, alive, session

_LEFT_BY_ITS_FIRST_THREAD = """\
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as stream:
        return stream.read().rpartition(")")[2].split()[0]


def test_a_process_is_remembered_while_it_lives() -> None:
    remembered = Remembered()
    assert remembered.living() == 0
    with subprocess.Popen(["sleep", "60"]) as process:
        remembered.keep(process.pid)
        assert remembered.living() == process.pid
        process.kill()
    assert remembered.living() == 0


def test_another_process_of_its_number_is_not_taken_for_it() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        remembered = Remembered()
        remembered.keep(process.pid)
        remembered._since -= 1  # as if the number had been another's
        assert remembered.living() == 0
        process.kill()


def test_a_process_lives_as_long_as_any_thread_of_it_though_its_first_has_ended() -> None:
    argv = [sys.executable, "-c", _LEFT_BY_ITS_FIRST_THREAD]
    with subprocess.Popen(argv, start_new_session=True) as process:
        while _state(process.pid) != "Z":
            time.sleep(0.01)
        lives, members = alive(process.pid), session(process.pid)
        process.kill()
        assert (lives, members) == (True, {process.pid})
        while alive(process.pid):
            time.sleep(0.01)
        assert session(process.pid) == set(), "nobody has waited for it, but it has ended"
