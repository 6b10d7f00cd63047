"""What a pod of `test_probes` runs: http, https, tcp and grpc on four ports, all well unless the file ``sick`` is there.

Its text is the container's command, so it needs nothing but Debian's Python and openssl.
"""

import contextlib
import http.server
import os
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import threading
import time

SICK = "/shared/sick"


class Web(http.server.BaseHTTPRequestHandler):
    """Answers 204, or 500 when it is sick."""

    def do_GET(self) -> None:
        self.send_response(500 if os.path.exists(SICK) else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        print(self.command, self.path, self.headers["Host"], self.headers["X-Probe"], flush=True)


class Health(socketserver.StreamRequestHandler):
    """grpc.health.v1.Health/Check of the service ``good``, in the few frames of HTTP/2 that a unary call takes."""

    def frame(self) -> tuple[int, int, bytes, bytes]:
        head = self.rfile.read(9)
        size, kind, flags, stream = (*struct.unpack(">I", b"\0" + head[:3]), head[3], head[4], head[5:])
        return kind, flags, stream, self.rfile.read(size)

    def send(self, kind: int, flags: int, stream: bytes, payload: bytes) -> None:
        self.wfile.write(struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + stream + payload)

    def handle(self) -> None:
        if not self.rfile.read(24).startswith(b"PRI * HTTP/2.0"):
            return
        self.send(4, 0, bytes(4), b"")
        kind, flags, stream, request = self.frame()
        while kind != 0 or not flags & 1:
            kind, flags, stream, request = self.frame()
        well = request[5:] == b"\x0a\x04good" and not os.path.exists(SICK)
        self.send(1, 4, stream, b"\x88")  # :status 200
        self.send(0, 0, stream, b"\0\0\0\0\x02\x08" + (b"\x01" if well else b"\x02"))
        self.send(1, 5, stream, b"\0\x0bgrpc-status\x010")
        self.rfile.read()


def serve(server: socketserver.BaseServer) -> None:
    threading.Thread(target=server.serve_forever, daemon=True).start()


def listen(port: int) -> None:
    """Take connections unless it is sick."""
    while True:
        with socket.create_server(("", port)) as listening:
            listening.settimeout(0.1)
            while not os.path.exists(SICK):
                with contextlib.suppress(TimeoutError):
                    listening.accept()[0].close()
        while os.path.exists(SICK):
            time.sleep(0.1)


def main() -> None:
    http_port, https_port, tcp_port, grpc_port = map(int, sys.argv[1:])
    words = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=nobody -keyout /tmp/key -out /tmp/certificate"
    subprocess.run(["openssl", *words.split()], check=True, stderr=subprocess.DEVNULL)
    secure = http.server.ThreadingHTTPServer(("", https_port), Web)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/tmp/certificate", "/tmp/key")
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    serve(secure)
    serve(http.server.ThreadingHTTPServer(("", http_port), Web))
    serve(socketserver.ThreadingTCPServer(("", grpc_port), Health))
    listen(tcp_port)


if __name__ == "__main__":
    main()
