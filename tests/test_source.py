"""Images by URL, from a real server on loopback that is good, wrong, slow or endless."""

import contextlib
import http.server
import socket
import threading
import time

import numpy as np
import pytest
from conftest import encoded, noise
from PIL import Image

from ms_ocr_handwritten.errors import ImageError
from ms_ocr_handwritten.image import Limits, download, load_image
from ms_ocr_handwritten.image.download import is_public

LINE_PNG = encoded(Image.fromarray(noise(8, 20)))


class Site(http.server.BaseHTTPRequestHandler):
    """One path for each way in which a server can be good, wrong, slow or endless."""

    sent = 0
    stop = threading.Event()

    def log_message(self, *args):
        pass

    def do_GET(self):
        path = self.path.removeprefix("http://far.invalid")  # what a proxy is asked for
        getattr(self, path.strip("/").split("?")[0].replace("-", "_"), self.unknown)()

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def unknown(self):
        self.reply(200 if self.path == "/%E6%89%8B%E5%86%99%20a.png" else 404, LINE_PNG)

    def line(self):
        self.reply(200, LINE_PNG)

    def moved(self):
        self.reply(302, Location="/line")

    def loop(self):
        self.reply(302, Location="/loop")

    def to_file(self):
        self.reply(302, Location="file:///etc/hostname")

    def to_ftp(self):
        self.reply(302, Location="ftp://127.0.0.1/line.png")

    def html(self):
        self.reply(200, b"<html>sign in")

    def nothing(self):
        self.reply(200, Content_Length="0")

    def announced(self):
        self.reply(200, Content_Length="999999999")

    def cut(self):
        self.reply(200, LINE_PNG[:200], Content_Length=str(len(LINE_PNG)))

    def endless(self):
        self.reply(200)
        self.trickle(bytes(65536), 0)

    def slow_body(self):
        self.reply(200)
        self.trickle(b"\0", 0.05)

    def slow_header(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
        self.trickle(b"a", 0.05)

    def trickle(self, part, pause):
        try:
            while not self.stop.wait(pause):
                self.wfile.write(part)
                Site.sent += len(part)
        except OSError:
            pass  # the reader has gone, as it should


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    Site.sent = 0
    Site.stop.clear()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Site.stop.set()
    server.shutdown()
    server.server_close()


def test_an_international_host_is_looked_up_by_its_ascii_name(site):
    host = "ｌｏｃａｌｈｏｓｔ"  # IDNA folds it to localhost
    np.testing.assert_array_equal(load_image(site.replace("127.0.0.1", host) + "/手写 a.png"), noise(8, 20))


@pytest.mark.parametrize("path", ["line", "moved", "line?token=a%2Fb", "手写 a.png", "%E6%89%8B%E5%86%99%20a.png"])
def test_url(site, path):
    np.testing.assert_array_equal(load_image(f"{site}/{path}"), noise(8, 20))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.png", "download failed .*404"),
        ("loop", "download failed .*redirect"),
        ("to-file", "download failed .*not allowed"),
        ("to-ftp", "download failed .*not allowed"),
        ("html", "not a readable image, no PNG, JPEG, .*; give a PNG or JPEG"),
        ("nothing", "empty"),
        ("announced", "over the limit of 33554432 bytes"),
        ("cut", "cannot be decoded|not a readable image"),
    ],
)
def test_useless_answers(site, path, message):
    with pytest.raises(ImageError, match=f"{site}/{path}: ({message})"):
        load_image(f"{site}/{path}", limits=Limits(url_timeout=5))


def test_endless_body_is_cut(site):
    with pytest.raises(ImageError, match="endless: over the limit of 1000000 bytes"):
        load_image(f"{site}/endless", limits=Limits(max_bytes=1_000_000))
    time.sleep(0.1)
    assert Site.sent < 20_000_000  # the limit and the socket's buffers, then the server found the door shut


@pytest.mark.parametrize("path", ["slow-body", "slow-header"])
def test_time_limit_is_a_total(site, path):
    start = time.monotonic()
    with pytest.raises(ImageError, match=f"{path}: not received within 0.4 s; try again or raise Limits.url_timeout"):
        load_image(f"{site}/{path}", limits=Limits(url_timeout=0.4))
    assert 0.4 <= time.monotonic() - start < 1.5
    assert Site.sent > 2  # it did trickle: no single wait was over the limit


def test_time_limit_covers_the_name_look_up(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: release.wait(5) and [])
    start = time.monotonic()
    with pytest.raises(ImageError, match="not received within 0.2 s"):
        load_image("http://nowhere.invalid/a.png", limits=Limits(url_timeout=0.2))
    assert time.monotonic() - start < 1.5
    release.set()


def test_no_server(site):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.png"
        with pytest.raises(ImageError, match=f"{url}: download failed .*check the address and the network"):
            load_image(url)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://host/a.png", "s3://bucket/a.png", "FILE://x"])
def test_other_schemes(url):
    scheme = url.split(":")[0]
    with pytest.raises(ImageError, match=f"{url}: {scheme}:// is not supported; give an http"):
        load_image(url)


@pytest.mark.parametrize(
    "address, public",
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_public_addresses(address, public):
    assert is_public(address) is public


def test_private_addresses_are_refused_where_the_limits_say_so(site):
    limits = Limits(private_addresses=False)
    with pytest.raises(ImageError, match="line: download failed .its host is not a public address"):
        load_image(f"{site}/line", limits=limits)
    assert load_image(f"{site}/line").shape == (8, 20, 3)  # by default they are read


def test_a_redirect_is_checked_as_the_first_address_is(site, monkeypatch):
    """A public name that sends on to loopback: here the first look-up alone is said to be public."""
    asked = []
    monkeypatch.setattr(download, "is_public", lambda address: not asked.append(address) and len(asked) == 1)
    with pytest.raises(ImageError, match="not a public address"):
        load_image(f"{site}/moved", limits=Limits(private_addresses=False))
    assert asked == ["127.0.0.1", "127.0.0.1"]


def test_no_thread_is_left(site):
    before = {thread for thread in threading.enumerate() if "image" in thread.name}
    for path in ("line", "slow-body", "endless", "loop"):
        with contextlib.suppress(ImageError):
            load_image(f"{site}/{path}", limits=Limits(url_timeout=0.3, max_bytes=1_000_000))
        assert {thread for thread in threading.enumerate() if "image" in thread.name} == before


def test_a_proxy_of_the_environment_is_asked(site, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("http_proxy", site)
    np.testing.assert_array_equal(load_image("http://far.invalid/line"), noise(8, 20))
