#!/bin/bash
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --job-name="default/hello:11111111-2222-3333-4444-555555555555"
#SBATCH --chdir="/home/alice/.slurmlet/hpc/pods/11111111-2222-3333-4444-555555555555"
#SBATCH --output="/home/alice/.slurmlet/hpc/pods/11111111-2222-3333-4444-555555555555/job.log"
#SBATCH --open-mode="append"
#SBATCH --export="NONE"
#SBATCH --no-requeue
#SBATCH --dependency="singleton"
#SBATCH --signal="B:USR1@120"
# srun takes SLURM_EXPORT_ENV=NONE as its own --export and would then find no command.
unset SLURM_EXPORT_ENV
umask 077
for python in /usr/bin/python3 /usr/libexec/platform-python /usr/local/bin/python3; do
  if "$python" -I -S -B -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null; then
    exec "$python" -I -S -B -c 'import hashlib, runpy, sys
archive, digest, *words = sys.argv[1:]
with open(archive, "rb") as stream:
    found = hashlib.sha256(stream.read()).hexdigest()
if found != digest:
    sys.exit("slurmlet: %s was changed: its SHA-256 is %s, not %s; not run" % (archive, found, digest))
sys.argv = [archive, *words]
runpy.run_path(archive, run_name="__main__")
' /home/alice/.slurmlet/hpc/bin/slurmlet-abababababababababababababababab.pyz abababababababababababababababababababababababababababababababab run /home/alice/.slurmlet/hpc/pods/11111111-2222-3333-4444-555555555555
  fi
done
echo slurmlet: no Python 3.6 or later on "$(uname -n)": tried '/usr/bin/python3 /usr/libexec/platform-python /usr/local/bin/python3' >&2
exit 127
