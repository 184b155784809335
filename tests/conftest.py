"""What several tests need: rendered lines, model directories with random weights, an LMDB, a blocked network."""

import functools
import http.server
import io
import json
import os
import socket
import threading
from pathlib import Path

os.environ.setdefault("MODELSCOPE_LOG_LEVEL", "40")

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import ms_ocr_handwritten  # noqa: F401  (registers, before any test imports modelscope)
from ms_ocr_handwritten.config import Configuration
from ms_ocr_handwritten.lmdb.store import write_lmdb
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT
from ms_ocr_handwritten.training.checkpoints import upstream_state_dict
from ms_ocr_handwritten.vocab import Vocabulary

torch.set_num_threads(1)  # for networks as small as these, threads only wait for each other

ROOT = Path(__file__).parent.parent
OFFICIAL = ROOT.parent / "shared" / "official"
ALPHABET = "abcdefghij0123456789"
TINY_NETWORK = {
    "depths": [1, 1, 1, 1],
    "dims": [16, 24, 32, 48],
    "layer_scale": 1.0,
    "embed_dim": 48,
    "blocks": 1,
    "heads": 3,
    "dropout": 0.0,
}


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Random uint8 (height, width, channels)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    """A Pillow image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def render(text: str, height: int = 40) -> np.ndarray:
    """A line of ASCII text, dark on white: BGR uint8 (height, W, 3)."""
    scale = height / 40
    image = np.full((height, int((18 * len(text) + 10) * scale), 3), 255, np.uint8)
    return cv2.putText(
        image, text, (int(4 * scale), int(28 * scale)), cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, (0, 0, 0), 2
    )


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def unsure_lines(count: int) -> list[np.ndarray]:
    """Pieces of the example lines, blurred and in noise, so that the embedded model is often unsure: grey uint8."""
    random, found = np.random.default_rng(0), []
    for name in ("english.png", "chinese.png"):
        grey = cv2.imread(str(ROOT / "examples" / "lines" / name), cv2.IMREAD_GRAYSCALE)
        for _ in range(count // 2):
            start, width = int(random.integers(grey.shape[1] - 40)), int(random.integers(40, 400))
            piece = cv2.GaussianBlur(grey[:, start : start + width], (0, 0), float(random.uniform(0.5, 2.5)))
            found.append(np.clip(piece + random.normal(0, 25, piece.shape), 0, 255).astype(np.uint8))
    return found


def random_texts(count: int, longest: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return ["".join(random.choice(list(ALPHABET), random.integers(1, longest + 1))) for _ in range(count)]


def configuration(**network) -> dict:
    """The repository's configuration.json with `network` in place of the official sizes."""
    raw = json.loads((ROOT / "configuration.json").read_text(encoding="utf-8"))
    raw["model"]["network"] = network
    return raw


def make_model_dir(folder: Path, characters: str, scale: float = 1.0, **network) -> Path:
    """A model directory with random weights (seed 0); `scale` widens the logits, so that texts are not all blank."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = Vocabulary(tuple(characters))
    raw = configuration(**{"num_classes": vocabulary.classes, **network})
    (folder / "configuration.json").write_text(json.dumps(raw), encoding="utf-8")
    vocabulary.save(folder / "vocab.txt")
    torch.manual_seed(0)
    model = ConvNextViT(Configuration.parse(raw).network)
    with torch.no_grad():
        model.vitstr.pos_embed.normal_(0, scale)
        model.vitstr.head.weight.mul_(scale)
    torch.save(upstream_state_dict(model), folder / "pytorch_model.pt")
    return folder


def weaken_positions(folder: Path) -> Path:
    """Let the image decide what a random model reads, where otherwise the position in the chunk nearly does alone."""
    weights = torch.load(folder / "pytorch_model.pt", weights_only=True)
    weights["recognizer.vitstr.pos_embed"] *= 0.1
    torch.save(weights, folder / "pytorch_model.pt")
    return folder


@pytest.fixture
def tiny_model_dir(tmp_path: Path) -> Path:
    """A small variant that knows ALPHABET, with random weights."""
    return make_model_dir(tmp_path / "tiny_model", ALPHABET, **TINY_NETWORK)


@pytest.fixture(scope="session")
def official_model_dir(tmp_path_factory) -> Path:
    """The official sizes and layout with random weights that read many characters; 7,643 made-up vocabulary lines."""
    characters = [chr(0x4E00 + i) for i in range(7643)]
    return make_model_dir(tmp_path_factory.mktemp("official"), "".join(characters[:7642]), scale=3.0, num_classes=7644)


@pytest.fixture
def lines_lmdb(tmp_path: Path) -> Path:
    """48 rendered lines of 1 to 4 characters of ALPHABET."""
    path = tmp_path / "lines_lmdb"
    write_lmdb(path, [(png(render(text)), text) for text in random_texts(48, 4)])
    return path


@pytest.fixture
def blocked_network(monkeypatch):
    """Any connection or name look-up beyond loopback raises, and is listed in the fixture's value."""
    attempts: list = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self, address):
        if isinstance(address, tuple) and not str(address[0]).startswith("127."):
            attempts.append(address)
            raise OSError(f"blocked: {address}")
        return connect(self, address)

    def guarded_look_up(host, *arguments, **keywords):
        if host not in ("localhost", "127.0.0.1", None):
            attempts.append(host)
            raise socket.gaierror(f"blocked: {host}")
        return look_up(host, *arguments, **keywords)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)
    return attempts


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def served(tmp_path):
    """The address of tmp_path, served on loopback."""
    handler = functools.partial(_QuietHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
