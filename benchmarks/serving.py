"""The server under load, compared with `read_many`: throughput, latencies, and that no text is lost or swapped.

    python benchmarks/serving.py [--requests 10000] [--bad 1000] [--clients 64] [--rounds 3] [--backend torch]

A server runs as a process on loopback with the embedded model; this process reads the same lines with `read_many` and
then sends them over `--clients` connections, alternating, `--rounds` times. Bad requests (no image, truncated, not JSON
...) are sent in between. The clients need processor time too: it is reported, and is part of the server's time.
Exits with 1 if a text differs from that of `read_many`, a response is missing, or a bad request does not get a 4xx.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from statistics import median

import cv2
import numpy as np
from images import drawn_lines

BAD = (
    ("image/png", b"no picture"),
    ("image/png", None),  # the line, truncated
    ("application/json", b"{"),
    ("application/json", b'{"image": "!"}'),
    ("multipart/form-data; boundary=x", b"junk"),
    ("text/plain", b"a line"),
)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--bad", type=int, default=1_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="auto")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    lines = drawn_lines(chosen.requests, np.random.default_rng(0))
    pictures = [cv2.imencode(".png", line)[1].tobytes() for line in lines]
    from ms_ocr_handwritten import Recognizer, default_model_dir

    recognizer = Recognizer.from_pretrained(default_model_dir(), chosen.backend, chosen.precision)
    reading = ["--backend", recognizer.backend, "--precision", recognizer.precision]
    print(f"{recognizer.backend}, {recognizer.precision}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    process, port = started(*reading)
    try:
        list(recognizer.read_many(pictures[:64]))
        ratios = []
        for _ in range(chosen.rounds):
            start = time.perf_counter()
            texts = [line.text for line in recognizer.read_many(pictures)]
            direct = time.perf_counter() - start
            load = Load(pictures, texts, chosen.bad, port)
            own = processor_seconds()
            start = time.perf_counter()
            asyncio.run(load.run(chosen.clients))
            served = time.perf_counter() - start
            own = processor_seconds() - own
            ratios.append(direct / served)
            load.report(direct, served, own)
        print(
            f"throughput of read_many's: {', '.join(f'{ratio:.2f}' for ratio in ratios)}; median {median(ratios):.2f}"
        )
    finally:
        process.send_signal(signal.SIGTERM)
        print(f"exit code after SIGTERM: {process.wait(60)}")


def started(*reading: str) -> tuple[subprocess.Popen, int]:
    command = [sys.executable, "-m", "ms_ocr_handwritten.cli", "serve", "--port", "0", "--no-page", *reading]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for row in process.stderr:
        if "http://" in row:
            return process, int(row.partition("http://127.0.0.1:")[2].partition(";")[0])
    raise SystemExit(f"the server ended with {process.wait()}")


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Load:
    """What the clients send, and the responses."""

    def __init__(self, pictures: list[bytes], texts: list[str], bad: int, port: int) -> None:
        self.pictures, self.texts, self.port = pictures, texts, port
        every = max(1, len(pictures) // bad) if bad else len(pictures) + 1
        self.todo = iter(
            [one for index in range(len(pictures)) for one in ([index, ~index] if index % every == 0 else [index])]
        )
        self.seconds: list[float] = []
        self.refused = 0

    async def run(self, clients: int) -> None:
        await asyncio.gather(*(self.client() for _ in range(clients)))

    async def client(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for index in self.todo:
            kind, body = "image/png", self.pictures[max(index, ~index)]
            if index < 0:
                kind, sent = BAD[~index % len(BAD)]
                body = body[: len(body) // 2] if sent is None else sent
            start = time.perf_counter()
            head = f"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            status, row = await answer(reader)
            if index < 0:
                self.refused += 1
                if not (400 <= status < 500 and row["message"]):
                    raise SystemExit(f"{kind}, bad: {status}, {row}")
            else:
                self.seconds.append(time.perf_counter() - start)
                if status != 200 or row["text"] != self.texts[index]:
                    raise SystemExit(f"line {index}: {status}, {row}; read_many reads {self.texts[index]!r}")
        writer.close()

    def report(self, direct: float, served: float, own: float) -> None:
        if len(self.seconds) != len(self.pictures):
            raise SystemExit(f"{len(self.seconds)} of {len(self.pictures)} lines were answered")
        in_order = sorted(self.seconds)
        p50, p99 = (1000 * in_order[int(share * len(in_order))] for share in (0.5, 0.99))
        count = len(self.pictures)
        print(
            f"{count} lines: read_many {count / direct:.0f} a second, served {count / served:.0f} a second "
            f"({direct / served:.2f}); p50 {p50:.0f} ms, p99 {p99:.0f} ms; {self.refused} bad requests refused; "
            f"clients took {own:.1f} s of processor time in {served:.1f} s; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head[9:12]), json.loads(await reader.readexactly(length))


if __name__ == "__main__":
    main()
