"""`ms-ocr serve` as a process on loopback, and requests to it."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from typing import Any

SECONDS = 60  # that a start or an answer may take on a busy machine


class Server:
    """A server that is started with `options`; `port` is where it listens."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ms_ocr_handwritten.cli", "serve", "--port", "0", *options],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.greeting = ""
        while found := self.process.stderr.readline():
            self.greeting += found
            if at := re.search(r"http://127\.0\.0\.1:(\d+)", found):
                self.port = int(at[1])
                return
        raise AssertionError(f"exit {self.process.wait()}\n{self.greeting}")

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def stop(self) -> tuple[int, str]:
        """Ask it to end; its exit code and what it wrote on stderr since its greeting."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        return self.process.wait(SECONDS), self.process.stderr.read()

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), SECONDS)

    def post(self, body: Any, kind: str | None = None, path: str = "/recognize") -> tuple[int, Any, Any]:
        """Status, JSON and headers of the answer, over a connection of its own."""
        connection = self.connection()
        try:
            return post(connection, body, kind, path)
        finally:
            connection.close()

    def get(self, path: str) -> str:
        connection = self.connection()
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """A sample, with its labels as they are written; 0 while there is none."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics"), re.M)
        return float(found[1]) if found else 0.0

    def wait_for(self, name: str, value: float) -> None:
        end = time.monotonic() + SECONDS
        while self.metric(name) != value:
            assert time.monotonic() < end, f"{name} is {self.metric(name)}"
            time.sleep(0.01)


def post(
    connection: http.client.HTTPConnection, body: Any, kind: str | None = None, path: str = "/recognize"
) -> tuple[int, Any, Any]:
    connection.request("POST", path, body, {} if kind is None else {"Content-Type": kind})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read()), answer.headers


def form(picture: bytes, name: str = "line.png") -> tuple[bytes, str]:
    """The body and content type of a form with one file, as curl sends it."""
    head = f'--mark\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
    return (f"{head}Content-Type: image/png\r\n\r\n").encode() + picture + b"\r\n--mark--\r\n", (
        "multipart/form-data; boundary=mark"
    )
