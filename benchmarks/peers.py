"""The readers compared: ModelScope's builtin, RapidOCR and this package, behind one interface (clock.Reader)."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from clock import Reader, fastest
from tiles import fit_head

from ms_ocr_handwritten import Recognizer, default_model_dir
from ms_ocr_handwritten.errors import OcrError
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT
from ms_ocr_handwritten.plugin.registration import TASK, upstream_class
from ms_ocr_handwritten.recognisers import ConvNextViTConfig
from ms_ocr_handwritten.training.checkpoints import upstream_state_dict

CONFIGURATION = Path(__file__).parent.parent / "configuration.json"
OWN_BATCH = 32  # lines per batch in a list, fixed here; for the peers the best is chosen
BUILTIN_BATCHES = (None, 4, 16, 32)  # None: a list without batch_size
CHARACTERS = [chr(0x4E00 + index) for index in range(7642)]  # ids 2 to 7643; id 7644 is an empty line, as in upstream's


class Missing(Exception):
    """A peer that is not installed, or does not run; the message gives the reason."""


def official_model_dir(folder: Path, reads: bool = True) -> str:
    """The official sizes with random weights; if it `reads`, with a head that reads tiles (tiles.py)."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = json.loads(CONFIGURATION.read_text(encoding="utf-8"))
    raw["model"].pop("network")
    (folder / "configuration.json").write_text(json.dumps(raw), encoding="utf-8")
    (folder / "vocab.txt").write_text("".join(character + "\n" for character in CHARACTERS) + "\n", encoding="utf-8")
    torch.manual_seed(0)
    network = ConvNextViT(ConvNextViTConfig()).eval()
    with torch.no_grad():
        network.vitstr.pos_embed.normal_(0, 0.3)
    if reads:
        fit_head(network)
    torch.save(upstream_state_dict(network), folder / "pytorch_model.pt")
    return str(folder)


class Builtin:
    """ModelScope's own pipeline, model and preprocessor, which this package's registration sets aside."""

    name, precision = "ModelScope's builtin", "fp32"

    def __init__(self, model_dir: str, device: str) -> None:
        """Raises Missing if ModelScope's modules cannot be imported."""
        try:
            pipeline_class = upstream_class("PIPELINES", TASK, "convnextTiny-ocr-recognition")
            self.model = upstream_class("MODELS", TASK, "OCRRecognition")(model_dir)
            self.preprocessor = upstream_class("PREPROCESSORS", "cv", TASK)(model_dir)
        except ImportError as error:
            raise Missing(f"{self.name}: {error}") from error

        class Pipeline(pipeline_class):
            def initiate_single_model(_, model_or_dir, **kwargs):
                return self.model

        self.pipeline = Pipeline(model_dir, preprocessor=self.preprocessor, device=device)
        self.batch_size: int | None = None

    def one(self, image) -> str:
        return self.pipeline(image)["text"][0]

    def many(self, images: list) -> list[str]:
        return self._many(images, self.batch_size)

    def _many(self, images: list, batch_size: int | None) -> list[str]:
        if batch_size is None:
            return [result["text"][0] for result in self.pipeline(images)]
        return [result["text"] for result in self.pipeline(images, batch_size=batch_size)]

    def choose_batch_size(self, images: list) -> None:
        """Select the fastest way of reading a list of these images."""
        modes = {str(size): lambda images, size=size: self._many(images, size) for size in BUILTIN_BATCHES}
        best = fastest(modes, images)
        self.batch_size = None if best == "None" else int(best)

    def gap(self, image) -> float:
        """The minimum distance of a column's two best logits, as a share of the largest logit."""
        chunks = self.preprocessor(image)["image"].to(next(self.model.parameters()).device)
        with torch.inference_mode():
            best = self.model(chunks)["probs"].topk(2, dim=-1).values  # (1, 201, 2)
        return ((best[..., 0] - best[..., 1]).min() / best.abs().max()).item()


class OwnPipeline:
    """This package behind ModelScope's `pipeline(...)`."""

    def __init__(self, model_dir: str, device: str, precision: str) -> None:
        from modelscope.pipelines import pipeline

        self.pipeline = pipeline(TASK, model=model_dir, precision=precision, device=device)
        self.precision = self.pipeline.precision
        chosen = "" if precision == self.precision else f" ({self.precision}, {self.pipeline.backend})"
        self.name = f"ours, {precision}{chosen}"

    @property
    def counts(self) -> tuple[int, int]:
        """Number of chunks recomputed in fp32, and of all chunks computed."""
        backend = self.pipeline.recognizer._backend
        return backend.checked, backend.computed

    def one(self, image) -> str:
        return self.pipeline(image)["text"][0]

    def many(self, images: list) -> list[str]:
        return [result["text"] for result in self.pipeline(images, batch_size=OWN_BATCH)]


class OwnRecognizer:
    """This package without ModelScope, with the embedded model."""

    def __init__(self, backend: str, precision: str, threads: int) -> None:
        """Raises Missing for a backend that is not installed, or for which the embedded model has no file."""
        threads = {} if backend in ("auto", "torch") else {"threads": threads}  # torch's are set for the process
        try:
            self.recognizer = Recognizer.from_pretrained(
                default_model_dir(), backend, precision, device="cpu", **threads
            )
        except OcrError as error:
            reason = str(error).replace(default_model_dir(), "the embedded model")
            raise Missing(f"ours, {backend} {precision}: {reason}") from error
        self.precision = self.recognizer.precision
        chosen = f"{self.recognizer.backend} {self.precision}"
        self.name = f"ours, auto ({chosen})" if backend == precision == "auto" else f"ours, {chosen}"

    def one(self, image) -> str:
        return self.recognizer.read(image).text

    def many(self, images: list) -> list[str]:
        return [line.text for line in self.recognizer.read_many(images, batch_size=OWN_BATCH)]


class RapidOcr:
    """RapidOCR's recogniser alone: no detection, no direction classifier."""

    name, precision = "RapidOCR", "fp32"

    def __init__(self, threads: int) -> None:
        """Raises Missing if the package or onnxruntime is not installed."""
        try:
            import onnxruntime  # noqa: F401  (RapidOCR itself would only fail at its first line)
            from rapidocr import RapidOCR
        except ImportError as error:
            raise Missing(f"{self.name}: {error} (pip install rapidocr onnxruntime)") from error
        self.engine = RapidOCR(
            params={"Global.log_level": "error", "EngineConfig.onnxruntime.intra_op_num_threads": threads}
        )
        self.modes = {
            "one by one": lambda images: [self.one(image) for image in images],
            "in batches": lambda images: list(self.engine.recognize_txt(images).txts),
        }
        self.mode = "one by one"

    def one(self, image) -> str:
        return "".join(self.engine(image, use_det=False, use_cls=False).txts or ())

    def many(self, images: list) -> list[str]:
        return self.modes[self.mode](images)

    def choose_mode(self, images: list) -> None:
        """Select the fastest way of reading a list of these images: its own batches pad to the widest."""
        self.mode = fastest(self.modes, images)


def those_there_are(makers: list[Callable[[], Reader]]) -> tuple[list[Reader], list[str]]:
    """The readers that can be made, and the reasons for those that cannot."""
    readers, missing = [], []
    for make in makers:
        try:
            readers.append(make())
        except Missing as error:
            missing.append(str(error))
    return readers, missing
