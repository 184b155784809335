"""The page's server, by HTTP: what it serves, what it refuses, and that it asks nobody."""

import io
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from app_tools import require_gradio
from conftest import ALPHABET, ROOT, TINY_NETWORK, make_model_dir, png, render

from ms_ocr_handwritten.app.interface import Served, Settings, serve
from ms_ocr_handwritten.errors import ConfigurationError, OutputError
from ms_ocr_handwritten.lmdb.store import write_lmdb

require_gradio()
httpx = pytest.importorskip("httpx")  # which gradio brings


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model_dir(tmp_path_factory.mktemp("app") / "model", ALPHABET, scale=3.0, **TINY_NETWORK)


@pytest.fixture(scope="module")
def corrections(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("app") / "corrections"
    write_lmdb(path, [(png(render("ab")), "ab")])
    return path


@pytest.fixture(scope="module")
def served(model, corrections) -> Iterator[Served]:
    page = serve(Settings(models=(str(model),), corrections=corrections))
    yield page
    page.close()


@pytest.fixture
def client(served) -> Iterator:
    with httpx.Client(base_url=served.url) as client:
        yield client


def upload(client, content: bytes, name: str = "line.png"):
    return client.post("/gradio_api/upload", files={"files": (name, io.BytesIO(content), "image/png")})


def call(client, name: str, data: list) -> str:
    """The events that the queue answers a call of the function `name` with, its first one."""
    functions = client.get("/config").json()["dependencies"]
    index = next(one["id"] for one in functions if one["api_name"] == name)
    body = {"data": data, "fn_index": index, "session_hash": "test", "event_data": None, "trigger_id": None}
    assert client.post("/gradio_api/queue/join", json=body).status_code == 200
    return client.get("/gradio_api/queue/data", params={"session_hash": "test"}, timeout=60).text


def test_only_this_machine_is_listened_to(served):
    assert served.url.startswith("http://127.0.0.1:")


def test_the_browser_is_kept_at_home(client):
    page = client.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http:" not in policy and "https:" not in policy and "*" not in policy
    assert "fonts.googleapis" not in page.text and "cdnjs" not in page.text
    theme = client.get("/theme.css").text
    assert "url(http" not in theme and "@import" not in theme


def test_files_of_this_machine_are_not_served(client, corrections, model):
    for path in ("/etc/passwd", corrections / "data.mdb", model / "configuration.json", ROOT / "setup.py", __file__):
        assert client.get(f"/gradio_api/file={path}").status_code in (403, 404), path


def test_what_was_uploaded_is_served_from_a_folder_of_its_own(client):
    picture = png(render("ab"))
    (path,) = upload(client, picture).json()
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    assert Path(path).is_relative_to(folder) and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert client.get(f"/gradio_api/file={path}").content == picture
    assert client.get(f"/gradio_api/file={folder}/../../etc/passwd").status_code in (403, 404)


def test_an_upload_has_no_more_bytes_than_the_limits(client):
    assert upload(client, b"x" * (64 * 2**20 + 1)).status_code == 413


def test_addresses_are_not_fetched_for_others(client, blocked_network):
    for path in ("file=http://example.invalid/a.png", "file=HTTPS://example.invalid", "proxy=http://example.invalid/a"):
        assert client.get(f"/gradio_api/{path}").status_code == 403
    picture = {"path": "http://example.invalid/a.png", "meta": {"_type": "gradio.FileData"}}
    assert "give an uploaded file, not an address" in call(client, "dropped", [picture])
    assert blocked_network == []


def test_a_path_that_was_not_uploaded_is_refused(client):
    picture = {"path": "/etc/passwd", "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    answer = call(client, "dropped", [picture])
    assert '"success":false' in answer.replace(" ", "") and "root:" not in answer


def test_nothing_is_asked_of_the_network(model, blocked_network):
    page = serve(Settings(models=(str(model),)))
    try:
        assert httpx.get(page.url).status_code == 200
    finally:
        page.close()
    assert blocked_network == []


def test_gradio_writes_nothing_beside_our_modules(served):
    assert list((ROOT / "ms_ocr_handwritten" / "app").glob("*.pyi")) == []


def test_without_corrections_there_is_no_tab_for_them(model):
    page = serve(Settings(models=(str(model),)))
    try:
        names = [one["api_name"] for one in httpx.get(f"{page.url}config").json()["dependencies"]]
    finally:
        page.close()
    assert "reading" in names and "saved" not in names


def test_a_model_that_cannot_be_opened_is_told_at_once(tmp_path):
    with pytest.raises(ConfigurationError, match="configuration.json"):
        serve(Settings(models=(str(tmp_path),)))


def test_a_port_that_is_taken_is_told(model, served):
    port = int(served.url.rstrip("/").rpartition(":")[2])
    with pytest.raises(OutputError, match=f"127.0.0.1:{port}"):
        serve(Settings(models=(str(model),), port=port))


@pytest.mark.parametrize(
    ("command", "tabs"),
    [
        ([ROOT / "examples" / "studio" / "app.py"], ["reading"]),
        (["-m", "ms_ocr_handwritten.cli", "app", "--port", "{port}"], ["reading", "saved"]),
    ],
)
def test_the_studio_and_the_command_serve_the_page(command, tabs, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    names = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port), "PYTHONUNBUFFERED": "1"}
    arguments = [str(part).format(port=port) for part in command]
    child = subprocess.Popen([sys.executable, *arguments], cwd=tmp_path, env=os.environ | names, stdout=subprocess.PIPE)
    try:
        for _ in range(600):
            assert child.poll() is None
            try:
                functions = httpx.get(f"{url}config").json()["dependencies"]
                break
            except httpx.TransportError:
                time.sleep(0.1)
        assert [name for name in ("reading", "saved") if name in {one["api_name"] for one in functions}] == tabs
        if "saved" in tabs:
            assert child.stdout.readline().decode() == f"{url} (Ctrl-C ends it)\n"
            assert child.stdout.readline().decode() == f"corrections: {tmp_path / 'corrections'}\n"
    finally:
        child.terminate()
        child.communicate(timeout=30)
    assert os.listdir(tmp_path) == []  # nothing is made before the first correction
