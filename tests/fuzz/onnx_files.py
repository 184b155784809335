"""ONNX files: other inputs and outputs, loops, functions, data in other files, and damaged bytes."""

import random
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from ms_ocr_handwritten.backends.onnx import open_onnx
from ms_ocr_handwritten.config import Configuration
from ms_ocr_handwritten.image import line_canvas
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT
from ms_ocr_handwritten.onnx.export import export_onnx

from .case import READ, REFUSED, Case
from .mutate import mutated
from .weights import SIZES

IMAGES = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["chunks", 3, 32, 300])


@lru_cache(maxsize=1)
def exported() -> bytes:
    torch.manual_seed(0)
    network = ConvNextViT(Configuration.parse({"model": {"network": SIZES}}).network)
    with tempfile.TemporaryDirectory() as folder:
        return export_onnx(network, Path(folder, "model.onnx")).read_bytes()


def output(name: str, shape: list, kind: int = TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes: list, inputs: list = (IMAGES,), outputs: list = (), tensors: list = (), **more) -> bytes:
    outputs = list(outputs) or [output("logits", [1, 201, 9])]
    graph = helper.make_graph(list(nodes), "g", list(inputs), outputs, list(tensors))
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **more
    ).SerializeToString()


def constant_logits(shape: tuple = (1, 201, 9), dtype=np.float32) -> bytes:
    """A file whose output does not depend on its input."""
    return model([helper.make_node("Identity", ["w"], ["logits"])], tensors=[numpy_helper.from_array(np.zeros(shape, dtype), "w")],
                 outputs=[output("logits", None, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))])  # fmt: skip


def loop() -> bytes:
    """A loop of 2^62 rounds."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["x"], ["y"])],
        "body",
        [output("i", [], TensorProto.INT64), output("go", [], TensorProto.BOOL), output("x", None)],
        [output("on", [], TensorProto.BOOL), output("y", None)],
    )
    tensors = [numpy_helper.from_array(np.array(2**62), "rounds"), numpy_helper.from_array(np.array(True), "go0")]
    return model([helper.make_node("Loop", ["rounds", "go0", "images"], ["logits"], body=body)], tensors=tensors)


def branch() -> bytes:
    inner = helper.make_graph([helper.make_node("Identity", ["images"], ["z"])], "inner", [], [output("z", None)])
    tensors = [numpy_helper.from_array(np.array(True), "go")]
    node = helper.make_node("If", ["go"], ["logits"], then_branch=inner, else_branch=inner)
    return model([node], tensors=tensors)


def external(location: str) -> bytes:
    tensor = numpy_helper.from_array(np.zeros((1, 201, 9), np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return model([helper.make_node("Identity", ["w"], ["logits"])], tensors=[tensor])


def constant_of_external() -> bytes:
    tensor = onnx.load_from_string(external("/etc/passwd")).graph.initializer[0]
    return model([helper.make_node("Constant", [], ["logits"], value=tensor)])


def function() -> bytes:
    made = helper.make_function("own", "F", ["x"], ["y"], [helper.make_node("F", ["x"], ["y"], domain="own")], [])
    return model([helper.make_node("F", ["images"], ["logits"], domain="own")], functions=[made])


def with_input(*inputs) -> bytes:
    return model([helper.make_node("Identity", ["images"], ["logits"])], inputs=list(inputs))


def of_columns(ids: np.ndarray, log_probs: np.ndarray) -> bytes:
    """A file with our own outputs, whatever the input."""
    tensors = [numpy_helper.from_array(ids, "a"), numpy_helper.from_array(log_probs, "b")]
    nodes = [
        helper.make_node("Identity", ["a"], ["chunk_ids"]),
        helper.make_node("Identity", ["b"], ["chunk_log_probs"]),
    ]
    kinds = (helper.np_dtype_to_tensor_dtype(one.dtype) for one in (ids, log_probs))
    return model(nodes, tensors=tensors, outputs=[output(name, None, kind) for name, kind in zip(("chunk_ids", "chunk_log_probs"), kinds)])  # fmt: skip


SEEDS: list[tuple[str, Callable[[], bytes], str | None]] = [
    ("sound", lambda: exported(), READ),
    ("constant logits", constant_logits, READ),
    ("constant columns", lambda: of_columns(np.zeros((1, 75), np.int64), np.zeros((1, 75), np.float32)), READ),
    ("loop without end", loop, REFUSED),
    ("branch", branch, REFUSED),
    ("function that calls itself", function, REFUSED),
    ("data in /etc/passwd", lambda: external("/etc/passwd"), REFUSED),
    ("data beside it", lambda: external("weights.bin"), REFUSED),
    ("data in weights that are not there", lambda: external("pytorch_model.pt"), REFUSED),
    ("data in weights above it", lambda: external("../pytorch_model.pt"), REFUSED),
    ("a constant's data in /etc/passwd", constant_of_external, REFUSED),
    ("another vendor's operator", lambda: model([helper.make_node("Gelu", ["images"], ["logits"], domain="com.microsoft")]), REFUSED),
    ("an operator nobody has", lambda: model([helper.make_node("Teleport", ["images"], ["logits"])]), REFUSED),
    ("random numbers", lambda: model([helper.make_node("RandomNormalLike", ["images"], ["logits"])]), REFUSED),
    ("strings", lambda: model([helper.make_node("StringNormalizer", ["images"], ["logits"])]), REFUSED),
    ("two inputs", lambda: with_input(IMAGES, output("more", [1])), REFUSED),
    ("no input", lambda: model([], inputs=[]), REFUSED),
    ("no output", lambda: helper.make_model(helper.make_graph([], "g", [IMAGES], [])).SerializeToString(), REFUSED),
    ("an input of another shape", lambda: with_input(output("images", [1, 3, 32, 640])), REFUSED),
    ("an input of another rank", lambda: with_input(output("images", ["n", 3, 32])), REFUSED),
    ("an input without shape", lambda: with_input(output("images", None)), REFUSED),
    ("an input of bytes", lambda: with_input(output("images", ["n", 3, 32, 300], TensorProto.UINT8)), REFUSED),
    ("an output of the input", lambda: with_input(IMAGES), REFUSED),
    ("logits of another shape", lambda: constant_logits((1, 7, 9)), REFUSED),
    ("logits of rank 1", lambda: constant_logits((9,)), REFUSED),
    ("logits of no class", lambda: constant_logits((1, 201, 0)), REFUSED),
    ("logits of whole numbers", lambda: constant_logits(dtype=np.int64), REFUSED),
    ("columns of another shape", lambda: of_columns(np.zeros((1, 7), np.int64), np.zeros((1, 7), np.float32)), REFUSED),
    ("columns of other types", lambda: of_columns(np.zeros((1, 75), np.float32), np.zeros((1, 75), np.float32)), REFUSED),
    ("a Gemm of other sizes", lambda: model([helper.make_node("Gemm", ["images", "images"], ["logits"])]), REFUSED),
    ("a cycle", lambda: model([helper.make_node("Add", ["images", "logits"], ["logits"])]), REFUSED),
    ("empty", lambda: b"", REFUSED),
    ("no ONNX", lambda: b"PK\3\4" * 1000, REFUSED),
    ("truncated", lambda: exported()[:-5000], REFUSED),
]  # fmt: skip


def _attempt(path: Path) -> None:
    open_onnx(path, 1).read([line_canvas(np.full((32, 90, 3), 255, np.uint8))])


def case(number: int, folder: Path) -> Case:
    if number < len(SEEDS):
        name, build, expected = SEEDS[number]
        content = build()
    else:
        chance = random.Random(number)
        seeds = [exported(), exported(), constant_logits(), loop(), external("/etc/passwd")]
        name, content, expected = "mutated", mutated(chance, chance.choice(seeds), seeds), None
    path = folder / "model.onnx"
    path.write_bytes(content)
    return Case(name, lambda: _attempt(path), expected)
