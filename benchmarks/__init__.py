"""What the bridge costs: pods through Slurmlet beside plain ``sbatch``, on the testbed, in the same run.

``python -m benchmarks [--host local|ssh] [--only EXPERIMENT] [--quick] [--json FILE]``. Three experiments: ``latency``
(one pod at a time), ``submission`` (hundreds at once) and ``scale`` (hundreds that run). README.md says what they mean.
"""
