/* What the end-to-end tests run as an MPI program: a token round the ring, a sum over all ranks, and what each rank is.
 *
 *     mpi-check [SECONDS]
 *
 * Rank 0 prints the results; each rank prints its line. SECONDS: how long to stay before the end. Exit status 1: a result
 * is wrong; 2: the world is not as large as Slurm says (SLURM_NTASKS), as when every rank is a world of its own.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int ring(int rank, int size)
{
    int token = 0;
    if (size == 1)
        return 1;
    if (rank > 0)
        MPI_Recv(&token, 1, MPI_INT, rank - 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    token++;
    MPI_Send(&token, 1, MPI_INT, (rank + 1) % size, 0, MPI_COMM_WORLD);
    if (rank == 0)
        MPI_Recv(&token, 1, MPI_INT, size - 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    return token;
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value == NULL ? "" : value;
}

int main(int argc, char **argv)
{
    int rank, size, mine, sum = 0, token, right;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    token = ring(rank, size);
    mine = rank + 1;
    MPI_Allreduce(&mine, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    right = sum == size * (size + 1) / 2 && (rank > 0 || token == size);
    printf("rank %d of %d on %s\n", rank, size, variable("SLURMD_NODENAME"));
    if (rank == 0)
        printf("ring %d allreduce %d\n", token, sum);
    fflush(stdout);
    if (argc > 1)
        sleep((unsigned)atoi(argv[1]));
    MPI_Finalize();
    if (size != atoi(variable("SLURM_NTASKS")))
        return 2;
    return right ? 0 : 1;
}
