"""`ms-ocr serve`, the real server on loopback: what it answers, what it refuses, and whom it does not let suffer."""

import asyncio
import base64
import http.client
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner
from conftest import ROOT, encoded, png, unsure_lines
from PIL import Image
from server import Server, form, post

from ms_ocr_handwritten import PageReader, Recognizer, default_model_dir
from ms_ocr_handwritten.cli import main
from ms_ocr_handwritten.errors import BackendError, BusyError
from ms_ocr_handwritten.line import line_row
from ms_ocr_handwritten.serve.app import create_app
from ms_ocr_handwritten.serve.doors import line_door, page_door
from ms_ocr_handwritten.serve.metrics import Metrics
from ms_ocr_handwritten.serve.options import ServeOptions

PLACES = 'ms_ocr_queue_places{queue="lines"}'
GONE = 'ms_ocr_requests_total{path="/recognize",status="499"}'
LINE = (ROOT / "examples" / "lines" / "english.png").read_bytes()
READING = ("--backend", "onnxruntime", "--precision", "fp32")  # starts soonest


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer.from_pretrained(default_model_dir(), "onnxruntime", "fp32")


@pytest.fixture(scope="module")
def server():
    """One with narrow bounds, for all tests that do not end it."""
    narrow = ("--max-mib", "0.25", "--max-megapixels", "1", "--receive-seconds", "1", "--urls", "any", "--no-page")
    with Server(*READING, *narrow) as server:
        yield server


@pytest.fixture(scope="module")
def waiting_server():
    """One that has two places, and computes a second after the first is taken."""
    with Server(*READING, "--queue", "2", "--wait-ms", "1000", "--urls", "public", "--no-page") as server:
        yield server


@pytest.fixture(scope="module")
def pairing_server():
    """One that computes when there are two lines; the test that ends it is its last."""
    with Server(*READING, "--batch-size", "2", "--wait-ms", "1000000", "--seconds", "5", "--no-page") as server:
        yield server


def as_json(**sent) -> tuple[bytes, str]:
    return json.dumps(sent).encode(), "application/json"


# ---------------------------------------------------------------------- what is read


def test_every_way_to_send_a_picture_gives_the_row_that_the_command_writes(
    server, recognizer, served, tmp_path, monkeypatch
):
    (tmp_path / "line.png").write_bytes(LINE)
    row = json.loads(json.dumps(line_row(None, recognizer.read(LINE))))
    named = row | {"path": "line.png"}
    assert row["text"] and set(row) == {"path", "text", "score", "chars"}
    for sent, expected in (
        ((LINE, "image/png"), row),
        ((LINE, "application/octet-stream"), row),
        ((LINE, None), row),
        (form(LINE), named),
        (as_json(image=base64.b64encode(LINE).decode()), row),
        (as_json(url=f"{served}/line.png"), row | {"path": f"{served}/line.png"}),
    ):
        status, answer, headers = server.post(*sent)
        assert (status, answer) == (200, expected)
        assert headers["content-type"] == "application/json"
    monkeypatch.chdir(tmp_path)
    written = CliRunner().invoke(main, ["recognize", "--format", "jsonl", *READING, "line.png"])
    assert json.loads(written.stdout) == named


BAD = {
    "no picture": ((b"no picture", "image/png"), 422, "ImageError", "not a readable image"),
    "cut off": ((LINE[:-40], "image/png"), 422, "ImageError", "damaged or truncated"),
    "empty": ((b"", "image/png"), 422, "ImageError", "empty"),
    "many pixels": ((encoded(Image.new("1", (1100, 1000))), None), 422, "ImageError", "limit of 1000000 pixels"),
    "many bytes": ((b"x" * (2**18 + 1), None), 413, "RequestError", "262145 bytes are over the limit of 262144"),
    "too many bytes": ((b"x" * 2**20, None), 413, "RequestError", "over the limit of 365909 bytes"),
    "another kind": ((LINE, "text/plain"), 415, "RequestError", "'text/plain' is not supported"),
    "no JSON": ((b"{", "application/json"), 400, "RequestError", "not JSON"),
    "deep JSON": ((b"[" * 100_000, "application/json"), 400, "RequestError", "not JSON"),
    "another key": (as_json(path="/etc/passwd"), 400, "RequestError", "one key, 'image' (base64) or 'url'"),
    "no base64": (as_json(image="data:image/png;base64,AAAA"), 400, "RequestError", "send only base64"),
    "no string": (as_json(image=[1]), 400, "RequestError", "'image' is not a string"),
    "a file's URL": (as_json(url="file:///etc/passwd"), 400, "RequestError", "http:// or https:// expected"),
    "a path": (as_json(url="/etc/passwd"), 400, "RequestError", "http:// or https:// expected"),
    "nobody's URL": (as_json(url="http://127.0.0.1:1/"), 422, "ImageError", "download failed"),
    "no form": ((b"junk", "multipart/form-data; boundary=mark"), 400, "RequestError", "not a multipart form"),
    "no boundary": ((form(LINE)[0], "multipart/form-data"), 400, "RequestError", "not a multipart form"),
    "half a form": ((form(LINE)[0][:-40], form(LINE)[1]), 400, "RequestError", "the form holds 0 files"),
    "an empty file": (form(b""), 422, "ImageError", "empty"),
}


@pytest.mark.parametrize("sent, status, error, message", BAD.values(), ids=BAD)
def test_what_is_refused_is_told_why(server, sent, status, error, message):
    got, answer, _ = server.post(*sent)
    assert (got, answer["error"]) == (status, error)
    assert message in answer["message"]


def test_what_is_no_request_of_ours_is_told_so(server):
    assert server.post(LINE, path="/nothing")[0] == 404
    status, answer, headers = server.post(LINE, path="/healthz")
    assert (status, headers["allow"]) == (405, "GET")
    assert "/docs lists the paths" in answer["message"]
    status, answer, _ = server.post(LINE, path="/page")
    assert (status, answer["error"]) == (501, "BackendError")
    assert "--no-page" in answer["message"]
    connection = server.connection()
    connection.request("POST", "/recognize", LINE, {"Content-Encoding": "gzip"})
    assert connection.getresponse().status == 415
    connection.close()


def test_many_at_once_get_their_own_texts_with_bad_ones_in_between(server, recognizer):
    pictures = [png(picture) for picture in unsure_lines(32)]
    texts = [line.text for line in recognizer.read_many(pictures)]
    assert len(set(texts)) > 20
    bad = list(BAD.values())
    before = server.metric('ms_ocr_batch_size_count{queue="lines"}')

    def client(first: int) -> list[tuple[int, str]]:
        connection, found = server.connection(), []
        for index in range(first, len(pictures), 8):
            status, answer, _ = post(connection, pictures[index])
            assert status == 200
            found.append((index, answer["text"]))
            sent, expected, _, _ = bad[index % len(bad)]
            if len(sent[0]) < 2**18:  # after larger ones the connection may be closed
                assert post(connection, *sent)[0] == expected
        connection.close()
        return found

    with ThreadPoolExecutor(8) as pool:
        found = dict(pair for pairs in pool.map(client, range(8)) for pair in pairs)
    assert [found[index] for index in range(len(pictures))] == texts
    batches = server.metric('ms_ocr_batch_size_count{queue="lines"}') - before
    assert 2 <= batches < len(pictures) / 2  # they were computed together


def test_urls_are_fetched_only_where_they_are_allowed(pairing_server):
    status, answer, _ = pairing_server.post(*as_json(url="http://127.0.0.1:1/"))
    assert (status, answer["error"]) == (403, "RequestError")
    assert "--urls" in answer["message"]


def test_public_urls_lead_to_no_private_address(waiting_server, served, tmp_path):
    (tmp_path / "line.png").write_bytes(LINE)
    status, answer, _ = waiting_server.post(*as_json(url=f"{served}/line.png"))
    assert (status, answer["error"]) == (422, "ImageError")
    assert "not a public address" in answer["message"]


def test_it_describes_itself_and_its_page_loads_nothing(server):
    described = json.loads(server.get("/openapi.json"))
    assert set(described["paths"]) == {"/recognize", "/page", "/healthz", "/metrics"}
    answers = described["paths"]["/recognize"]["post"]["responses"]
    assert set(answers) == {"200", "400", "403", "408", "413", "415", "422", "503"}
    line = described["components"]["schemas"]["LineAnswer"]
    assert set(line["properties"]) == {"path", "text", "score", "chars", "alternatives"}
    page = server.get("/docs")
    assert "POST /recognize" in page and "LineAnswer" in page
    assert not any(loading in page for loading in ("<script", "src=", "<link", "http:", "https:"))
    assert json.loads(server.get("/healthz")) == {"status": "ok", "backend": "onnxruntime", "precision": "fp32"}


# ---------------------------------------------------------------------- whom it does not let suffer


def test_a_slow_body_is_given_up_and_others_do_not_wait(server):
    with server.socket() as slow:
        start = time.monotonic()
        slow.sendall(b"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
        assert server.post(LINE)[0] == 200
        answer = slow.recv(4096)
        assert time.monotonic() - start > 0.9
        assert answer.startswith(b"HTTP/1.1 408") and b"not received within 1 s" in answer + slow.recv(4096)


@pytest.mark.parametrize("begun", [b"", b"POST /recognize HTTP/1.1\r\nHo"])
def test_a_slow_head_is_hung_up_on(server, begun):
    with server.socket() as slow:
        slow.sendall(begun)
        assert server.post(LINE)[0] == 200
        slow.settimeout(10)
        assert slow.recv(4096) == b""


def test_a_head_without_end_is_hung_up_on(server):
    pytest.importorskip("httptools")  # the faster of uvicorn's two parsers, which has no bound of its own
    header = b"X-A: " + bytes(60_000).replace(b"\0", b"a") + b"\r\n"
    with server.socket() as endless, pytest.raises(ConnectionError):
        endless.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        for _ in range(300):  # 18 MB
            endless.sendall(header)
    assert server.post(LINE)[0] == 200


def test_a_slow_second_head_too_and_between_requests_there_is_time(server):
    with server.socket() as kept:
        kept.settimeout(10)
        for seconds in (1.5, 0):
            kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = http.client.HTTPResponse(kept)
            answer.begin()
            assert (answer.status, json.loads(answer.read())["status"]) == (200, "ok")
            time.sleep(seconds)
        kept.sendall(b"GET /hea")
        start = time.monotonic()
        assert kept.recv(4096) == b""
        assert time.monotonic() - start < 4  # uvicorn's own 5 s between requests ended with the first byte


def test_a_body_of_unknown_length_is_bounded_too(server):
    with server.socket() as endless:
        endless.sendall(b"POST /recognize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(6):
            endless.sendall(b"10000\r\n" + bytes(2**16) + b"\r\n")
        assert endless.recv(4096).startswith(b"HTTP/1.1 413")
    assert server.post(LINE)[0] == 200


def test_connections_are_bounded_and_those_that_say_nothing_make_room(server):
    silent = [server.socket() for _ in range(ServeOptions().connections)]
    try:
        with server.socket() as another:
            another.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert another.recv(4096).startswith(b"HTTP/1.1 503")
        silent[-1].settimeout(10)
        assert silent[-1].recv(4096) == b""  # after the second that this server gives for a head
        assert server.post(LINE)[0] == 200
    finally:
        for connection in silent:
            connection.close()


def test_all_bodies_together_are_bounded_and_who_hangs_up_frees_his(recognizer):
    """The application in this process, since a body that is under its own limit is far below that of all."""
    httpx = pytest.importorskip("httpx")
    options = ServeOptions(received_bytes=len(LINE) + 1000)
    metrics = Metrics()
    lines = line_door(recognizer, options, metrics.computed("lines"))
    app = create_app(lines, BackendError("none"), options, metrics, {})

    async def halves(held: asyncio.Event, go_on: asyncio.Event):
        yield LINE[:-1]
        held.set()
        await go_on.wait()
        yield LINE[-1:]

    async def run() -> list[tuple[int, str]]:
        answers = []
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:

            async def post(content) -> None:
                answer = await client.post("/recognize", content=content)
                answers.append((answer.status_code, answer.json().get("message", "")))

            for hangs_up in (False, True):
                held, go_on = asyncio.Event(), asyncio.Event()
                first = asyncio.create_task(post(halves(held, go_on)))
                await held.wait()
                await post(LINE)
                if hangs_up:
                    first.cancel()
                go_on.set()
                await asyncio.wait([first])
            await post(LINE)
        return answers

    refused = (503, "too many bodies are being received; try again in 1 s")
    assert asyncio.run(run()) == [refused, (200, ""), refused, (200, "")]
    lines.close()


def test_who_hangs_up_within_the_body_hurts_nobody(server):
    head = f"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Length: {len(LINE)}\r\n\r\n".encode()
    for end in (0, 1, len(LINE) // 2, len(LINE) - 1):
        with server.socket() as leaving:
            leaving.sendall(head + LINE[:end])
    server.wait_for(GONE, 4)
    server.wait_for(PLACES, 0)
    assert server.post(LINE)[0] == 200


def test_where_no_place_is_left_it_says_when_to_ask_again(waiting_server):
    waiting_server.wait_for(PLACES, 0)
    with ThreadPoolExecutor(2) as pool:
        served = [pool.submit(waiting_server.post, LINE) for _ in range(2)]
        waiting_server.wait_for(PLACES, 2)
        status, answer, headers = waiting_server.post(LINE)
        assert (status, answer["error"], headers["retry-after"]) == (503, "BusyError", "1")
        assert "all its 2 places taken" in answer["message"]
        assert [one.result()[0] for one in served] == [200, 200]


def test_who_hangs_up_leaves_the_place(waiting_server):
    waiting_server.wait_for(PLACES, 0)
    head = f"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Length: {len(LINE)}\r\n\r\n".encode()
    left = [waiting_server.socket() for _ in range(2)]
    for connection in left:
        connection.sendall(head + LINE)
    waiting_server.wait_for(PLACES, 2)
    start = time.monotonic()
    for connection in left:
        connection.close()
    waiting_server.wait_for(PLACES, 0)
    assert time.monotonic() - start < 0.9
    assert waiting_server.post(LINE)[0] == 200


def test_an_answer_has_its_time(pairing_server):
    status, answer, headers = pairing_server.post(LINE)
    assert (status, answer["error"], headers["retry-after"]) == (503, "BusyError", "1")
    assert "not answered within 5 s" in answer["message"]
    pairing_server.wait_for(PLACES, 0)


def test_a_stop_finishes_what_has_begun(pairing_server, recognizer):
    with ThreadPoolExecutor(1) as pool, pairing_server.socket() as sending:
        waiting = pool.submit(pairing_server.post, LINE)
        head = f"POST /recognize HTTP/1.1\r\nHost: x\r\nContent-Length: {len(LINE)}\r\n\r\n".encode()
        sending.sendall(head + LINE[:100])
        pairing_server.wait_for(PLACES, 1)
        pairing_server.process.terminate()
        while True:  # until it takes no more connections
            try:
                pairing_server.socket().close()
            except ConnectionRefusedError:
                break
        assert not waiting.done()
        sending.sendall(LINE[100:])
        answer = http.client.HTTPResponse(sending)
        answer.begin()
        text = recognizer.read(LINE).text
        assert waiting.result()[1]["text"] == json.loads(answer.read())["text"] == text
    assert pairing_server.ended() == (0, "")


# ---------------------------------------------------------------------- pages


def test_a_page_and_the_pages_of_a_file_are_read():
    pytest.importorskip("rapidocr")
    with Image.open(ROOT / "examples" / "pages" / "english.jpg") as whole:
        pages = [whole.crop((0, 0, 620, 200)), Image.new("L", (400, 200), 255)]
    picture = encoded(pages[0])
    two = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    with Server(*READING) as server:
        assert "lines and pages" in server.greeting
        line = threading.Thread(target=server.post, args=(LINE,))
        line.start()
        status, answer, _ = server.post(*form(picture, "page.png"), path="/page")
        line.join()
        (page,) = answer["pages"]
        assert (status, page["source"], page["page"], page["width"]) == (200, "page.png", 1, 620)
        assert page["lines"][0]["text"] == "A page of text"
        status, answer, _ = server.post(two, "image/tiff", "/page")
        first, second = answer["pages"]
        assert (status, first["page"], second["page"], second["lines"]) == (200, 1, 2, [])
        assert [line["text"] for line in first["lines"]] == [line["text"] for line in page["lines"]]
        blank = Image.new("1", (8, 8), 1)
        many = encoded(blank, "TIFF", save_all=True, append_images=[blank] * 10)
        for sent, expected, reason in (
            ((b"no picture", None), 422, "not a readable image"),
            (form(b"", "/etc/hostname"), 422, "empty"),
            ((many, None), 413, "11 pages are over the limit of 10"),
        ):
            status, answer, _ = server.post(*sent, path="/page")
            assert (status, reason in answer["message"]) == (expected, True), answer


def test_pages_whose_time_is_over_are_not_begun(recognizer):
    looked_at = []

    def detector(page):
        looked_at.append(page.shape)
        time.sleep(slowness)
        return []

    blank = Image.new("L", (40, 30), 255)
    three = encoded(blank, "TIFF", save_all=True, append_images=[blank] * 2)
    door = page_door(PageReader(recognizer, detector), ServeOptions(seconds=1.0), lambda items, duration: None)
    slowness = 0.0
    assert [page["lines"] for page in door.begin("image/tiff", three).result()["pages"]] == [[], [], []]
    assert looked_at == [(30, 40, 3)] * 3
    slowness = 1.2
    with pytest.raises(BusyError, match="the time for this request is over; send fewer pages"):
        door.begin("image/tiff", three).result()
    assert looked_at == [(30, 40, 3)] * 4
    door.close()


# ---------------------------------------------------------------------- the command


def run(*options: str, script: str | None = None) -> subprocess.CompletedProcess:
    start = ["-m", "ms_ocr_handwritten.cli"] if script is None else ["-c", script]
    return subprocess.run([sys.executable, *start, "serve", *options], capture_output=True, text=True, timeout=60)


def test_a_port_that_is_taken_is_named(server):
    done = run("--port", str(server.port))
    assert done.returncode == 1
    assert f"error: 127.0.0.1, port {server.port}: cannot listen there" in done.stderr


def test_without_the_extra_the_command_says_what_to_install():
    hidden = "import sys; sys.modules['uvicorn'] = None; from ms_ocr_handwritten.cli import main; main()"
    done = run(script=hidden)
    assert done.returncode == 1
    assert "error: serving needs the package uvicorn" in done.stderr
    assert "pip install ms_ocr_handwritten[serve]" in done.stderr
