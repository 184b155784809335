"""HTTP servers that are endless, slow, or answer what is no HTTP; and addresses that a service must not fetch."""

import random
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path

from ms_ocr_handwritten.image import load_image
from ms_ocr_handwritten.image.limits import Limits

from .case import READ, REFUSED, Case
from .images import encoded, picture
from .mutate import mutated

LINE = encoded(picture(), "PNG")
TIMEOUT = 1.0  # s
GRACE = 2.0  # s beyond it, on a machine that has other things to do
LIMITS = Limits(url_timeout=TIMEOUT, max_bytes=2 * 2**20)
PAUSE = 0.02  # s between the parts of a slow answer
Answer = Iterable[bytes]


def answer(body: bytes = LINE, status: bytes = b"200 OK", *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, *headers, b"", body])


def endless(beginning: bytes, part: bytes) -> Answer:
    return chain([beginning], repeat(part))


def moved(target: bytes, body: bytes = b"") -> bytes:
    return answer(body, b"302 Found", b"Location: " + target)


CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = b"Content-Length: %d" % len(LINE)
SEEDS: list[tuple[str, Answer, str | None]] = [  # {port} in an answer is the server's own
    ("sound", [answer(LINE, b"200 OK", LENGTH)], READ),
    ("sound, without a length", [answer()], READ),
    ("chunked", [answer(b"%x\r\n%s\r\n0\r\n\r\n" % (len(LINE), LINE), b"200 OK", CHUNKED)], READ),
    ("after 100 Continue", [b"HTTP/1.1 100 Continue\r\n\r\n", answer()], READ),
    ("moved, with a body without end", endless(moved(b"/1"), bytes(65536)), REFUSED),
    ("moved, with a length of 10^12", endless(answer(b"", b"301 Moved", b"Location: /1", b"Content-Length: 1" + b"0" * 12), bytes(65536)), REFUSED),
    *[
        (f"moved to {target[:40].decode('ascii', 'backslashreplace')}", [moved(target)], REFUSED)
        for target in (
            b"/again", b"file:///etc/passwd", b"ftp://127.0.0.1/a", b"data:image/png;base64,AAAA", b"//", b"http://",
            b"http://[::1", b"http://127.0.0.1:99999/", b"http://127.0.0.1:1/", b"gopher://127.0.0.1:{port}/",
            b"http://" + b"a" * 70 + b".invalid/", b"http://user:pass@/", b"\xff\xfe", b"http://127.0.0.1:{port}/ a\tb",
        )
    ],
    ("body without end", endless(answer(b""), bytes(65536)), REFUSED),
    ("chunks without end", endless(answer(b"", b"200 OK", CHUNKED), b"10000\r\n" + bytes(65536) + b"\r\n"), REFUSED),
    ("trailers without end", endless(answer(b"0\r\n", b"200 OK", CHUNKED), b"X: a\r\n" * 100), REFUSED),
    ("100 Continue without end", endless(b"", b"HTTP/1.1 100 Continue\r\nX: a\r\n\r\n" * 100), REFUSED),
    ("headers without end", endless(b"HTTP/1.1 200 OK\r\n", b"X: a\r\n" * 100), REFUSED),
    ("a header without end", endless(b"HTTP/1.1 200 OK\r\nX: ", b"a" * 10_000), REFUSED),
    ("a status without end", endless(b"HTTP/1.1 200 ", b"a" * 10_000), REFUSED),
    ("a chunk size without end", endless(answer(b"", b"200 OK", CHUNKED), b"0" * 10_000), REFUSED),
    ("a chunk of 2^64", [answer(b"f" * 16 + b"\r\n", b"200 OK", CHUNKED)], REFUSED),
    ("a chunk of -1", [answer(b"-1\r\n" + LINE, b"200 OK", CHUNKED)], REFUSED),
    ("a chunk of no number", [answer(b"zz\r\n" + LINE, b"200 OK", CHUNKED)], REFUSED),
    ("a length of 10^30", [answer(LINE, b"200 OK", b"Content-Length: 1" + b"0" * 30)], REFUSED),
    ("a length of -1", [answer(LINE, b"200 OK", b"Content-Length: -1")], None),
    ("a length of no number", [answer(LINE, b"200 OK", b"Content-Length: many")], None),
    ("a length of nothing", [answer(b"", b"200 OK", b"Content-Length: 0")], REFUSED),
    ("cut", [answer(LINE[:-40], b"200 OK", LENGTH)], REFUSED),
    ("404", [answer(b"secret", b"404 No")], REFUSED),
    ("500, with a body without end", endless(answer(b"", b"500 No"), bytes(65536)), REFUSED),
    ("999", [answer(b"secret", b"999 secret")], REFUSED),
    ("no HTTP", [b"SSH-2.0-OpenSSH_9.2p1 secret\r\n"], REFUSED),
    ("nothing", [b""], REFUSED),
    ("a status alone", [b"HTTP/1.1 200 OK\r\n"], REFUSED),
    ("HTML", [answer(b"<html>secret")], REFUSED),
]  # fmt: skip
SLOW = [
    ("no answer", b""),
    ("a slow status", b"HTTP/1.1 200"),
    ("slow headers", b"HTTP/1.1 200 OK\r\nX: "),
    ("a slow body", answer(b"")),
    ("slow trailers", answer(b"0\r\nX: ", b"200 OK", CHUNKED)),
    ("a slow redirect", b"HTTP/1.1 302 Found\r\nLocation: /"),
]
PRIVATE = [  # where a service must not be sent; nothing but the first listens
    "http://127.0.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://localhost:{port}/",
    "http://0.0.0.0:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::1]:{port}/",
    "http://169.254.169.254/latest/meta-data",
    "http://10.0.0.1/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://224.0.0.1/",
]


class Server:
    """Answers every connection with the parts of `parts`; `asked` counts the connections."""

    def __init__(self, parts: Answer, pause: float = 0.0, close: bool = True) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.asked = self.listener.getsockname()[1], 0
        self._parts, self._pause, self._close, self._ended = parts, pause, close, threading.Event()
        threading.Thread(target=self._listen, name="server", daemon=True).start()

    def _listen(self) -> None:
        while not self._ended.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.asked += 1
            threading.Thread(target=self._serve, args=(connection,), name="server", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.settimeout(TIMEOUT + GRACE)
                connection.recv(65536)
                for part in self._parts:
                    connection.sendall(part.replace(b"{port}", b"%d" % self.port))
                    if self._ended.wait(self._pause):
                        return
                if not self._close:
                    self._ended.wait(2 * TIMEOUT)
            except OSError:
                pass  # the client has gone

    def close(self) -> None:
        self._ended.set()
        self.listener.close()


def _fetch(server: Server, url: str, limits: Limits) -> None:
    start = time.monotonic()
    try:
        load_image(url.replace("{port}", str(server.port)), limits=limits)
    except Exception as error:
        assert "secret" not in str(error), "what the server sent is in the message"
        raise
    finally:
        seconds = time.monotonic() - start
        asked = server.asked
        server.close()
        assert seconds < TIMEOUT + GRACE, f"{seconds:.1f} s"
        assert limits.private_addresses or not asked, "a private address was connected to"


def _slow(beginning: bytes) -> Iterator[bytes]:
    yield beginning
    yield from repeat(b"a")


def case(number: int, folder: Path) -> Case:
    limits, url, pause, close, expected = LIMITS, "http://127.0.0.1:{port}/line.png", 0.0, True, None
    rest = number
    if rest < len(SEEDS):
        name, parts, expected = SEEDS[rest]
    elif (rest := rest - len(SEEDS)) < len(SLOW):
        name, beginning = SLOW[rest]
        parts, pause, expected = (_slow(beginning), PAUSE, REFUSED) if beginning else ([], 0.0, REFUSED)
        close = False
    elif (rest := rest - len(SLOW)) < len(PRIVATE):
        url, parts, expected = PRIVATE[rest], [answer()], REFUSED
        name, limits = url, Limits(url_timeout=TIMEOUT, private_addresses=False)
    else:
        chance = random.Random(number)
        answers = [b"".join(parts) for _, parts, _ in SEEDS if isinstance(parts, list)]
        name, parts = "mutated", [mutated(chance, chance.choice(answers), answers)[: 2**20]]
        close = chance.random() < 0.9
    server = Server(parts, pause, close)
    return Case(name, lambda: _fetch(server, url, limits), expected)
