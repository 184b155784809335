"""What users hand over: open files, one Pillow image twice, None, arrays that are no image; and weights gone bad."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import ALPHABET, TINY_NETWORK, encoded, make_model_dir, noise, png, render
from modelscope.pipelines import pipeline
from modelscope.utils.constant import Tasks
from PIL import Image

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.errors import CheckpointError, ImageError
from ms_ocr_handwritten.image import Limits, load_image
from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.nets.weights import load_network


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return make_model_dir(tmp_path_factory.mktemp("model"), ALPHABET, scale=3.0, **TINY_NETWORK)


@pytest.fixture(scope="module")
def recognizer(model_dir):
    return Recognizer.from_pretrained(model_dir, "torch", "fp32", device="cpu")


# ------------------------------------------------------------------ open files


class Upload:
    """As Flask's: no `seekable`, not iterable."""

    def __init__(self, data: bytes) -> None:
        self.stream, self.filename = io.BytesIO(data), "line.png"

    def read(self, size: int = -1) -> bytes:
        return self.stream.read(size)

    def seek(self, place: int) -> None:
        self.stream.seek(place)


class Pipe(io.RawIOBase):
    """Bytes that cannot be wound back."""

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self.data.read(size)


@pytest.mark.parametrize("kind", ["written", "file", "upload", "pipe"])
def test_an_open_file_is_read_from_its_beginning(tmp_path, kind):
    line = noise(32, 90)
    (tmp_path / "line.png").write_bytes(png(line))
    written = io.BytesIO()
    Image.fromarray(line[:, :, ::-1]).save(written, "PNG")  # which leaves it at its end
    with open(tmp_path / "line.png", "rb") as file:
        streams = {"written": written, "file": file, "upload": Upload(png(line)), "pipe": Pipe(png(line))}
        np.testing.assert_array_equal(load_image(streams[kind]), line[:, :, ::-1])


class AsyncUpload:
    filename = "line.png"

    async def read(self, size: int = -1) -> bytes:
        return b""


def test_an_open_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "line.txt").write_text("a line")
    with (
        open(tmp_path / "line.txt") as file,
        pytest.raises(ImageError, match=r"line.txt: its read\(\) gives str.*'rb'"),
    ):
        load_image(file)
    with pytest.raises(ImageError, match=r"line.txt: cannot be read \(I/O operation on closed file.*open it again"):
        load_image(file)
    with pytest.raises(ImageError, match=r"AsyncUpload: its read\(\) gives coroutine.*await upload.read\(\)"):
        load_image(AsyncUpload())
    with pytest.raises(ImageError, match="BytesIO: empty"):
        load_image(io.BytesIO())
    with pytest.raises(ImageError, match="BytesIO: over the limit of 10 bytes"):
        load_image(io.BytesIO(bytes(11)), limits=Limits(max_bytes=10))


def test_the_pipeline_takes_an_open_file_for_one_image(model_dir, recognizer):
    read = pipeline(Tasks.ocr_recognition, model=str(model_dir), precision="fp32", backend="torch", device="cpu")
    line = render("abc")
    assert read(io.BytesIO(png(line)))["text"] == [recognizer.read(line).text]


# ------------------------------------------------------------------ lists


def test_errors_in_a_list_give_the_index_of_what_has_no_name(recognizer):
    line = render("abc")
    given = [line, np.zeros((3, 3, 7), np.uint8), None, "nowhere.png", b"?", line]
    messages = [str(item) for item in recognizer.read_many(given, errors="yield") if isinstance(item, ImageError)]
    assert [message.partition(": ")[0] for message in messages] == ["image 1", "image 2", "nowhere.png", "image 4"]
    assert "(3, 3, 7)" in messages[0]
    with pytest.raises(ImageError, match="image 2: None: no image; cv2.imread returns it if the path is wrong"):
        list(recognizer.read_many([line, line, None]))
    with pytest.raises(ImageError, match="^None: no image"):
        recognizer.read(None)


@pytest.mark.parametrize("single", ["line.png", b"bytes", io.BytesIO(b"bytes")])
def test_one_image_is_no_list(recognizer, single):
    with pytest.raises(ImageError, match="read_many was given a single .*; give a list, or call read"):
        recognizer.read_many(single)


def test_what_was_taken_before_the_callers_iterator_raised_is_given_out(recognizer):
    lines = [noise(32, width) for width in range(40, 80)]

    def scanner():
        yield from lines
        raise OSError("the scanner is gone")

    got = []
    with pytest.raises(OSError, match="the scanner is gone"):
        for line in recognizer.read_many(scanner(), batch_size=16):
            got.append(line.text)
    assert got == [recognizer.read(line).text for line in lines]


def test_one_pillow_image_may_come_several_times(recognizer):
    """Opened lazily, it is decoded by the first thread that uses it: the others wait."""
    data = encoded(Image.fromarray(noise(200, 3000)))
    expected = recognizer.read(data).text
    for _ in range(5):
        image = Image.open(io.BytesIO(data))
        assert {line.text for line in recognizer.read_many([image] * 12)} == {expected}
    image = Image.open(io.BytesIO(data))
    with ThreadPoolExecutor(8) as pool:
        assert len({load.tobytes() for load in pool.map(load_image, [image] * 8)}) == 1


# ------------------------------------------------------------------ weights


def test_classes_without_a_character_read_as_nothing(tmp_path):
    """A head may be larger than its vocabulary; the class beyond is one more blank, but for the text's confidence."""
    folder = make_model_dir(tmp_path / "model", ALPHABET, num_classes=len(ALPHABET) + 9, **TINY_NETWORK)
    weights = torch.load(folder / "pytorch_model.pt")
    weights["recognizer.vitstr.head.bias"][len(ALPHABET) + 5] += 50
    torch.save(weights, folder / "pytorch_model.pt")
    line = Recognizer.from_pretrained(folder, "torch", device="cpu").read(render("abc"))
    assert (line.text, line.chars) == ("", ())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value):
    folder = make_model_dir(tmp_path / "model", ALPHABET, **TINY_NETWORK)
    weights = torch.load(folder / "pytorch_model.pt")
    weights["recognizer.vitstr.head.bias"][3] = value
    torch.save(weights, folder / "pytorch_model.pt")
    with pytest.raises(
        CheckpointError, match=r"pytorch_model.pt: 1 of its .* hold nan or inf, .* vitstr.head.bias; .*"
    ):
        Recognizer.from_pretrained(folder, "torch", device="cpu")


def test_a_network_that_finds_no_numbers_gives_no_line(model_dir):
    model = ModelDir.open(model_dir)
    network = load_network(model.configuration.network, model.weights)
    recognizer = Recognizer.from_network(network, model.vocabulary, "fp32")
    with torch.no_grad():
        network.vitstr.head.bias[3] = torch.inf
    with pytest.raises(CheckpointError, match="output is not finite"):
        recognizer.read(render("abc"))


# ------------------------------------------------------------------ PyTorch's modes


def test_a_recogniser_made_in_inference_mode_reads(model_dir, recognizer):
    model, line = ModelDir.open(model_dir), render("abc")
    with torch.inference_mode():
        own = Recognizer.from_pretrained(model_dir, "torch", "fp32", device="cpu")
        network = load_network(model.configuration.network, model.weights)
        given = Recognizer.from_network(network.float(), model.vocabulary, "fp32")
    assert own.read(line) == given.read(line) == recognizer.read(line)
    frozen = load_network(model.configuration.network, model.weights)
    with torch.inference_mode():
        for module in frozen.modules():
            for name, parameter in module._parameters.items():
                module._parameters[name] = parameter.clone()
    assert Recognizer.from_network(frozen, model.vocabulary, "fp32").read(line) == recognizer.read(line)


def test_precision_flags_of_either_kind_are_left_as_they_are(model_dir, recognizer):
    flags, line = torch.backends.cudnn.conv, render("abc")
    before = flags.fp32_precision
    try:
        flags.fp32_precision = "ieee"
        for precision in ("fp32", "bf16", "bf16+fp32"):
            reader = Recognizer.from_pretrained(model_dir, "torch", precision, device="cpu")
            assert reader.read(line).text == recognizer.read(line).text or precision == "bf16"
        assert flags.fp32_precision == "ieee"
    finally:
        flags.fp32_precision = before
