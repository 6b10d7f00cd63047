"""What the runner keeps of its containers."""

from slurm_plugin.runner.book import Book, Facts
from slurm_plugin.runner.claim import Run
from slurm_plugin.runner.state import Running, Terminated, Waiting, last_restart

from .jobs import container, pod

ENDED = Terminated(3, 0, "Error", "", 1.0, 2.0)


def test_a_restart_that_has_to_wait_is_a_run_of_its_own() -> None:
    book = Book(pod(container("a", "true")), Facts(Run("42", 0), "cn1", (), ()))
    book.set("a", state=Running(1.0))
    book.set("a", state=ENDED)
    book.wait("a", "ErrImagePull", "no")
    book.wait("a", "ImagePullBackOff", "no")
    state = book.get("a")
    assert (state.restart_count, state.last, last_restart(state)) == (1, ENDED, 0)


def test_a_back_off_is_of_the_run_that_ended() -> None:
    book = Book(pod(container("a", "true")), Facts(Run("42", 0), "cn1", (), ()))
    book.set("a", state=Waiting("CrashLoopBackOff", ""), last=ENDED)
    assert last_restart(book.get("a")) == 0
    book.wait("a", "CreateContainerError", "no")
    assert (book.get("a").restart_count, last_restart(book.get("a"))) == (1, 0)


def test_at_the_end_nothing_runs_any_more() -> None:
    book = Book(pod(container("a", "true"), container("b", "true")), Facts(Run("42", 0), "cn1", (), ()))
    book.set("a", state=Running(1.0), started=True, ready=True)
    book.terminate("RunnerFailed", "why")
    book.finish()
    a, b = book.snapshot(1).containers
    assert isinstance(a.state, Terminated)
    assert (a.state.exit_code, a.state.reason, a.state.message, a.ready) == (137, "Error", "why", False)
    assert isinstance(b.state, Waiting)


def test_what_never_ran_waits_for_its_first_run() -> None:
    book = Book(pod(container("a", "true")), Facts(Run("42", 0), "cn1", (), ()))
    book.wait("a", "ErrImagePull", "no")
    assert (book.get("a").restart_count, book.get("a").last) == (0, None)
