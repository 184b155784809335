"""ModelScope's pipeline for handwriting: `Recognizer` behind `pipeline(Tasks.ocr_recognition, model=...)`."""

from collections.abc import Iterable
from threading import Lock
from typing import Any, Optional

import numpy as np
import torch
from modelscope.pipelines.base import Pipeline
from modelscope.pipelines.builder import PIPELINES
from modelscope.utils.config import Config
from PIL import Image

from ..backends.pytorch import torch_device
from ..errors import ConfigurationError, ImageError
from ..image import Limits
from ..model_dir import ModelDir
from ..recognizer import Line, Recognizer
from .building import RefusesUnknown
from .model import OCRRecognition
from .preprocessor import OCRRecognitionPreprocessor

DATASET_BATCH = 32  # images of an MsDataset or an iterator read at a time


@PIPELINES.register_module("ocr-recognition", module_name="convnextTiny-ocr-recognition")
class OCRRecognitionPipeline(RefusesUnknown, Pipeline):
    """Reads images of lines. Results have upstream's form, with `score` and `chars` added:

    - one image: {'text': [text], 'score': [score], 'chars': [chars]}
    - a list: a list of those
    - a list with batch_size: a list of {'text': text, 'score': score, 'chars': chars}
    - an MsDataset or another iterable: a generator of the first kind

    score is in [0, 1]; chars is a list of (character, score, x0, x1), x in px of the source image. With n_best, a
    language model or a constraint, `alternatives` is a list of (text, log-probability), best first.
    """

    def __init__(
        self,
        model: "str | OCRRecognition",
        precision: str = "auto",
        backend: str = "auto",
        device: str = "gpu",
        limits: Limits = Limits(),
        language_model: str | None = None,
        augment_below: float | None = None,
        preprocessor: Any = None,
    ) -> None:
        """
        Args:
            model: a model directory, or a loaded model, which is moved to `device`, as upstream does.
            precision, backend, device, limits, language_model, augment_below: as in `Recognizer.from_pretrained`.
            preprocessor: must be None; upstream's keyword, rejected with an explanation.

        Raises:
            ConfigurationError: an argument is invalid; and the errors of `Recognizer.from_pretrained`.
        """
        if preprocessor is not None:
            raise ConfigurationError(
                "preprocessor is not used by this pipeline, which reads images itself; change the "
                "image before, or read with Recognizer.read_canvases"
            )
        if isinstance(model, str):
            self.recognizer = Recognizer.from_pretrained(
                model,
                backend,
                precision,
                device=device,
                limits=limits,
                language_model=language_model,
                augment_below=augment_below,
            )
            self._model, self.model_dir = None, model
        elif isinstance(model, OCRRecognition):
            if backend not in ("auto", "torch"):
                raise ConfigurationError(
                    f"backend is {backend!r}, but the model is a loaded one, which runs on torch; "
                    "give its directory instead"
                )
            self.recognizer = Recognizer.from_network(
                model.recognizer,
                model.vocabulary,
                precision,
                device=device,
                limits=limits,
                language_model=language_model,
                augment_below=augment_below,
                decoder=ModelDir.open(model.model_dir).configuration.decoder.within(model.model_dir),
            )
            self._model, self.model_dir = model, model.model_dir
        else:
            raise ConfigurationError(
                f"model is a {type(model).__name__}; give one model directory, one model id, or "
                "what Model.from_pretrained returned"
            )
        self._set_what_upstream_sets(device)

    def _set_what_upstream_sets(self, device: str) -> None:
        """The attributes that `Pipeline.__init__` would set, for code that inspects a pipeline."""
        self.cfg = Config(ModelDir.open(self.model_dir).raw)
        self.framework = self.cfg.framework
        self.device_name, self.device_map = device, None
        self.device = torch_device(device) if self.backend == "torch" else torch.device("cpu")
        self.preprocessor = OCRRecognitionPreprocessor(self.model_dir)
        self.trust_remote_code = self.has_multiple_models = False
        self._auto_collate, self._compile = True, False
        self._compile_options: dict[str, Any] = {}
        self._model_prepare, self._model_prepare_lock = True, Lock()  # the recogniser's network is in place

    @property
    def model(self) -> OCRRecognition:
        """The model as ModelScope knows it: the loaded one that was given, else one loaded at first use.

        The pipeline itself reads with its own network or ONNX session.
        """
        if self._model is None:
            self._model = OCRRecognition(self.model_dir).to(self.device).eval()
        return self._model

    @property
    def models(self) -> list[OCRRecognition]:
        return [self.model]

    @property
    def backend(self) -> str:
        return self.recognizer.backend

    @property
    def precision(self) -> str:
        return self.recognizer.precision

    # `Optional` and `Any`, as ModelScope's deploy checker parses this line and does not support `int | None`
    def __call__(
        self,
        input: Any,
        batch_size: Optional[int] = None,  # noqa: UP045
        n_best: int = 1,
        allowed: Any = None,
        lexicon: Any = None,
        lexicon_mode: str = "line",
    ) -> Any:
        """Read `input`; see the class for the results, `load_image` for the accepted images.

        Args:
            input: one image, a list of images, or another iterable of images or of records with the key "image".
            batch_size: maximum number of lines computed together; changes the form of a list's result.
            n_best, allowed, lexicon, lexicon_mode: as in `Recognizer.read`.

        Raises:
            ImageError: an image cannot be read; and the errors of `Recognizer.read`.
        """
        if _is_image(input):
            return _wrapped(self.recognizer.read(_image(input), n_best, allowed, lexicon, lexicon_mode))
        lines = self.recognizer.read_many(
            map(_image, input),
            DATASET_BATCH if batch_size is None else batch_size,
            n_best=n_best,
            allowed=allowed,
            lexicon=lexicon,
            lexicon_mode=lexicon_mode,
        )
        if isinstance(input, (list, tuple)):
            return [_wrapped(line) if batch_size is None else _result(line) for line in lines]
        return map(_wrapped, lines)

    def forward(self, inputs: Any) -> Any:
        raise NotImplementedError("this pipeline reads in __call__")

    preprocess = postprocess = forward


def _is_image(value: Any) -> bool:
    kinds = (str, bytes, bytearray, memoryview, np.ndarray, Image.Image, dict)
    file_like = hasattr(value, "__fspath__") or hasattr(value, "read")  # iterating an open file would yield lines
    return isinstance(value, kinds) or file_like or not isinstance(value, Iterable)


def _image(item: Any) -> Any:
    """The image of a data set's item: the item itself, or the value of a record's key 'image'."""
    if not isinstance(item, dict):
        return item
    if "image" not in item:
        raise ImageError(f"a record with the keys {', '.join(map(repr, item))}: its image is expected under 'image'")
    return item["image"]


def _result(line: Line) -> dict[str, Any]:
    chars = [(char.character, char.score, char.x0, char.x1) for char in line.chars]
    result = {"text": line.text, "score": line.score, "chars": chars}
    return result | {"alternatives": list(line.alternatives)} if line.alternatives else result


def _wrapped(line: Line) -> dict[str, Any]:
    return {key: [value] for key, value in _result(line).items()}
