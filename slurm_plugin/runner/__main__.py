"""The archive's subcommands: ``run <job directory>``, ``rank <spec>``, ``enter <job directory>``, ``watch <root>``, ``agent``. Each loads only what it needs."""

import sys
from typing import List

_USAGE = "usage: slurmlet.pyz run JOB_DIRECTORY | rank [--clean | --signal N] SPEC | enter JOB_DIRECTORY | watch ROOT [--interval SECONDS] | agent\n"


def main(argv: List[str]) -> int:
    """Run one subcommand; return the exit code."""
    if sys.getfilesystemencoding() != "utf-8":
        from slurm_plugin.runner.locales import speak_utf8

        speak_utf8()
    command, arguments = (argv[0], argv[1:]) if argv else ("", [])
    if command == "run" and len(arguments) == 1:
        from slurm_plugin.runner.run import run_pod

        return run_pod(arguments[0])
    if command == "rank" and len(arguments) == 1:
        from slurm_plugin.runner.rank import run_rank

        return run_rank(arguments[0])
    if command == "rank" and len(arguments) == 2 and arguments[0] == "--clean":
        from slurm_plugin.runner.rank import clean

        return clean(arguments[1])
    if command == "rank" and len(arguments) == 3 and arguments[0] == "--signal":
        from slurm_plugin.runner.rank import signal_ranks

        return signal_ranks(int(arguments[1]), arguments[2])
    if command == "enter" and len(arguments) == 1:
        from slurm_plugin.runner.enter import enter_pod

        return enter_pod(arguments[0])
    if command == "watch" and arguments:
        from slurm_plugin.runner.watch import watch

        return watch(arguments)
    if command == "agent":
        from slurm_plugin.hostagent.server import main as serve

        return serve()
    sys.stderr.write(_USAGE)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
