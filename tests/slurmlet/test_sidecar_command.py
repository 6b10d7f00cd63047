"""``slurmlet sidecar`` as systemd runs it: Type=notify, TERM at the end."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_systemd_is_told_when_it_listens_and_when_it_ends(tmp_path: Path) -> None:
    served = tmp_path / "s"
    file = tmp_path / "sidecar.yaml"
    file.write_text(
        f"serve: {{unix_socket: {served}}}\nslurm: {{host: {{kind: local}}, root: {tmp_path}/root}}\nnode: {{name: n}}\n"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(tmp_path / "notify"))
        told.settimeout(120)
        environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        argv = [sys.executable, "-m", "slurmlet", "sidecar", f"--config={file}"]
        with subprocess.Popen(argv, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as process:
            try:
                assert told.recv(100) == b"READY=1"
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(served))
                process.send_signal(signal.SIGTERM)
                assert told.recv(100) == b"STOPPING=1"
                assert process.wait(60) == 0
            finally:
                process.kill()
