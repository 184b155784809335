"""Quantises one of our ONNX files to int8: calibrated on real lines, evaluated on labelled ones, rejected if worse.

Products with weights are quantised, in the form that onnxruntime's x86 kernels expect: weights int8, per output
channel; inputs uint8, with one range for all lines, so that a text does not depend on the lines read with it. All
else stays fp32. Does not need torch.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypedDict

import numpy as np

from ..atomic import appearing_whole
from ..backends.base import Backend
from ..backends.onnx import OnnxBackend, open_onnx, rgb_of_grey
from ..errors import QuantizationError
from ..geometry import CHUNKED, Layout
from ..image import LineCanvas
from ..metrics import Counts
from .metadata import PRECISION_KEY, VERSION_KEY, WEIGHTS_KEY, package_version, read_metadata, require

LIMIT = 0.002  # the file is rejected if CER of int8 minus CER of fp32, over all sets together, reaches this
MINIMUM_CHARACTERS = 1000  # of the labels, for which a difference of LIMIT is two errors
PRODUCTS = ("MatMul", "Gemm")  # the operators that are quantised if one factor is a weight; their sums are not
CALIBRATION_BATCH = 8  # chunks; a range is the mean of such batches' extremes, so that no single outlier widens it
EVALUATION_KEY = "ms_ocr_handwritten.evaluation"  # JSON, a list of `Comparison.rows`
CALIBRATION_KEY = "ms_ocr_handwritten.calibration_lines"

Score = Callable[[Backend], dict[str, Counts]]  # reads the labelled sets: the counts of each set by its name


class Row(TypedDict):
    """Scores of fp32 and int8 on one set, or on all."""

    set: str
    lines: int
    characters: int
    cer_fp32: float  # a fraction
    cer_int8: float


@dataclass(frozen=True)
class Comparison:
    """Counts of fp32 and int8 on the same sets, by set name."""

    fp32: dict[str, Counts]
    int8: dict[str, Counts]

    @property
    def difference(self) -> float:
        """CER of int8 minus CER of fp32, over all sets together."""
        return _total(self.int8).cer - _total(self.fp32).cer

    def rows(self) -> list[Row]:
        """One row per set; plain Python numbers, CER as a fraction."""
        return [_row(name, self.fp32[name], self.int8[name]) for name in self.fp32]

    def total(self) -> Row:
        """The row of all sets together."""
        return _row("all", _total(self.fp32), _total(self.int8))


def _total(sets: dict[str, Counts]) -> Counts:
    return sum(sets.values(), Counts())


def _row(name: str, fp32: Counts, int8: Counts) -> Row:
    return {"set": name, "lines": fp32.lines, "characters": fp32.characters, "cer_fp32": fp32.cer, "cer_int8": int8.cer}


def quantize_onnx(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    calibration: Iterable[LineCanvas],
    score: Score,
    layout: Layout = CHUNKED,
) -> Comparison:
    """Write `source`, an ONNX file of `export_onnx`, in int8 to `out`, if it reads the sets of `score` well enough.

    Args:
        source: a file that computes in fp32.
        out: path of the new file.
        calibration: about a hundred representative lines; labels are not needed.
        score: called twice, with the backend of `source` and with that of the new file.
        layout: how the network takes lines.

    Raises:
        QuantizationError: the CER grows by LIMIT or more, the sets hold fewer than MINIMUM_CHARACTERS, there are no
            lines for calibration, or `source` is of another kind; no new file is left.
        BackendError: onnx or onnxruntime is missing.
        CheckpointError: `source` cannot be read.
    """
    require("quantising", "onnx", "onnxruntime")
    source, out = Path(source), Path(out)
    whole = open_onnx(source, None, layout)
    if not isinstance(whole, OnnxBackend) or whole.precision != "fp32":
        raise QuantizationError(f"{source}: not an fp32 file of this package; make one with `ms-ocr export onnx`")
    fp32 = score(whole)
    characters = _total(fp32).characters
    if characters < MINIMUM_CHARACTERS:
        raise QuantizationError(
            f"the labels to evaluate with hold {characters} characters, on which {100 * LIMIT} "
            f"points of CER cannot be measured; name sets of {MINIMUM_CHARACTERS} or more"
        )
    with appearing_whole(out) as temporary:
        lines = _write(source, temporary, calibration)
        comparison = Comparison(fp32, score(open_onnx(Path(temporary), None, layout)))
        if not comparison.difference < LIMIT:
            raise QuantizationError(_refusal(source, comparison))
        _describe(source, temporary, lines, comparison)
    return comparison


def _refusal(source: Path, comparison: Comparison) -> str:
    sets = "; ".join(f"{row['set']} {_both(row)}" for row in comparison.rows())
    points = f"{100 * comparison.difference:+.2f} points"
    return (
        f"{source}: its CER is {_both(comparison.total())}, {points}, of which less than {100 * LIMIT} are "
        f"accepted ({sets}); nothing was written. Calibrate with more lines like these, or keep fp32"
    )


def _both(row: Row) -> str:
    return f"{100 * row['cer_fp32']:.2f} % in fp32 and {100 * row['cer_int8']:.2f} % in int8"


def _write(source: Path, out: str, calibration: Iterable[LineCanvas]) -> int:
    """Write the quantised file; returns the number of lines used for calibration."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="ms_ocr_int8.") as folder:
        prepared = os.path.join(folder, "prepared.onnx")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)  # computed weights become constants
        graph = onnx.load(prepared).graph
        weights = {tensor.name for tensor in graph.initializer}
        products = [node.name for node in graph.node if node.op_type in PRODUCTS and node.input[1] in weights]
        batches = _Batches(calibration, graph.input[0].name)
        quantize_static(
            prepared,
            out,
            batches,
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=products,
            weight_type=QuantType.QInt8,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            reduce_range=True,  # 7-bit weights: without VNNI, sums of 8-bit products overflow
            extra_options={"CalibMovingAverage": True, "OpTypesToExcludeOutputQuantization": list(PRODUCTS)},
        )
    _set_metadata(out, {PRECISION_KEY: "int8"})  # which its backend reports
    return batches.lines


class _Batches:
    """The batches for onnxruntime's calibration; `lines` counts the lines used."""

    def __init__(self, lines: Iterable[LineCanvas], input_name: str) -> None:
        self.lines, self._source, self._input = 0, lines, input_name
        self._chunks = self._each_chunk()

    def _each_chunk(self) -> Iterator[np.ndarray]:
        for line in self._source:
            self.lines += 1
            yield from line.piece_array()

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input, float32 (N, 3, 32, 300); None after the last. Raises QuantizationError if there is none."""
        batch = list(islice(self._chunks, CALIBRATION_BATCH))
        if not batch and not self.lines:
            raise QuantizationError("there are no lines to calibrate with; name sets that contain some")
        return {self._input: rgb_of_grey(np.stack(batch))} if batch else None


def _describe(source: Path, path: str, lines: int, comparison: Comparison) -> None:
    """Record in the file its origin and accuracy; of the sets' paths only the last component."""
    rows = [row | {"set": Path(str(row["set"])).name} for row in comparison.rows()]
    known = {
        PRECISION_KEY: "int8",
        VERSION_KEY: package_version(),
        CALIBRATION_KEY: str(lines),
        EVALUATION_KEY: json.dumps(rows, ensure_ascii=False),
    }
    digest = read_metadata(source).get(WEIGHTS_KEY)
    _set_metadata(path, known | ({WEIGHTS_KEY: digest} if digest else {}))


def _set_metadata(path: str, entries: dict[str, str]) -> None:
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, path)
