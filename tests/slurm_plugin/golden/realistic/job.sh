#!/bin/bash
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem="1280M"
#SBATCH --partition="cpu"
#SBATCH --job-name="shop/web-5d8f9c7b6-x2x9z:6b0d3b0a-8a8e-4c4f-9d0e-0a1b2c3d4e5f"
#SBATCH --chdir="/home/alice/.slurmlet/hpc/pods/6b0d3b0a-8a8e-4c4f-9d0e-0a1b2c3d4e5f"
#SBATCH --output="/home/alice/.slurmlet/hpc/pods/6b0d3b0a-8a8e-4c4f-9d0e-0a1b2c3d4e5f/job.log"
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
' /home/alice/.slurmlet/hpc/bin/slurmlet-abababababababababababababababab.pyz abababababababababababababababababababababababababababababababab run /home/alice/.slurmlet/hpc/pods/6b0d3b0a-8a8e-4c4f-9d0e-0a1b2c3d4e5f
  fi
done
echo slurmlet: no Python 3.6 or later on "$(uname -n)": tried '/usr/bin/python3 /usr/libexec/platform-python /usr/local/bin/python3' >&2
exit 127
