import pytest

from slurm_plugin.runner.worlds import alone, library

OPEN_MPI = frozenset({"libmpi.so.40.40.7", "libc.so.6"})
MPICH = frozenset({"libmpich.so.12.4.1", "libc.so.6"})
PMIX = frozenset({"libpmix.so.2.13.7"})


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (OPEN_MPI, "Open MPI"),
        (MPICH, "MPICH"),
        (frozenset({"libmpi.so.12.0.0"}), "MPICH"),
        (frozenset({"libmpi_cray.so.12"}), "MPICH"),
        (frozenset({"libc.so.6"}), ""),
    ],
)
def test_an_mpi_library_is_known_by_its_files(names: frozenset[str], found: str) -> None:
    assert library(names) == found


@pytest.mark.parametrize(
    ("names", "pmi", "ntasks", "wrong"),
    [
        (OPEN_MPI | PMIX, "pmix", 4, False),
        (MPICH, "pmi2", 4, False),
        (MPICH | PMIX, "pmix", 4, False),
        (OPEN_MPI | {"libpmi2.so.0"}, "pmi2", 4, False),
        (MPICH, "pmix", 4, True),
        (OPEN_MPI | PMIX, "pmi2", 4, True),
        (MPICH, "none", 4, True),
        (MPICH, "none", 1, False),
        (frozenset({"libc.so.6"}), "none", 4, False),
    ],
)
def test_a_library_that_can_not_ask_the_process_manager_is_told(
    names: frozenset[str], pmi: str, ntasks: int, *, wrong: bool
) -> None:
    words = alone(names, pmi, ntasks)
    assert bool(words) is wrong
    assert not wrong or f"--mpi={pmi}" in words
