"""What is downloaded is what was published, or an error that says what happened: against a server on loopback."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import TestbedError
from testbed.kubernetes import download

CONTENT = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Serves one file, whole or broken off half-way, with the length announced or in chunks."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        content = CONTENT[: len(CONTENT) // 2] if "cut" in self.path else CONTENT
        self.send_response(200)
        if "chunks" in self.path:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n" % len(CONTENT) + content)
        else:
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(content)
        self.close_connection = True

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_arrives_whole(url: str, tmp_path: Path) -> None:
    download._fetch(f"{url}/file", tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_file_that_is_not_the_published_one_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match=rf"/file has SHA-256 {SHA256}, but {'0' * 64} is published"):
        download._fetch(f"{url}/file", tmp_path / "file", "0" * 64)


@pytest.mark.parametrize("path", ["cut", "cut-chunks"])
def test_a_file_whose_stream_is_cut_is_refused(url: str, path: str, tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match=rf"/{path} (has SHA-256|cannot be downloaded)"):
        download._fetch(f"{url}/{path}", tmp_path / "file", SHA256)


@pytest.mark.parametrize("path", ["missing", "cut", "cut-chunks"])
def test_a_checksum_that_does_not_arrive_whole_is_an_error_that_names_it(url: str, path: str) -> None:
    with pytest.raises(TestbedError, match=rf"/{path} cannot be downloaded"):
        download._text(f"{url}/{path}")


def test_nobody_listening_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match=r"http://127.0.0.1:9/file cannot be downloaded"):
        download._fetch("http://127.0.0.1:9/file", tmp_path / "file", SHA256)
