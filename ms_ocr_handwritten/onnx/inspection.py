"""Checks what an ONNX file would compute before a runtime opens it: operators, inputs, outputs, and data locations.

Runtimes execute whatever a graph says, including endless loops and files of its choice. Only the files that this
package and ModelScope's exporter write need to run, so nothing else is accepted. The graph is traversed in protobuf's
wire format, without the package onnx, which readers need not have.

Source of the field numbers: onnx.proto of ONNX 1.16 (IR version 10).
"""

import mmap
import os
from collections.abc import Iterator

from ..errors import CheckpointError
from ..files import check_regular
from ..geometry import CHUNK_WIDTH, LINE_HEIGHT, Layout

_OURS = """Add ArgMax Cast Concat Constant Conv Div Erf Flatten Gather Gelu Gemm GreaterOrEqual Identity
    LayerNormalization LogSoftmax MatMul Mod Mul Pow Range ReduceMax ReduceMean Reshape Shape Slice Softmax Split Sqrt
    Squeeze Sub Transpose Unsqueeze QuantizeLinear DequantizeLinear"""  # opsets 14 to 20, and int8
_WHOLE_LINES = "BatchNormalization GlobalAveragePool LSTM MaxPool PRelu Relu Sigmoid"  # of CRNN and LightweightEdge
_MODELSCOPES = "ConstantOfShape Equal Expand ScatterND Where"  # in addition to these; opsets 11 to 18
_DYNAMIC = "DynamicQuantizeLinear MatMulInteger ConvInteger"  # from onnxruntime's dynamic quantisation of them
OPERATORS = frozenset(f"{_OURS} {_WHOLE_LINES} {_MODELSCOPES} {_DYNAMIC}".split())
_FLOAT = 1  # TensorProto.DataType
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types
_MOST_NODES = 100_000
_BESIDE = b"pytorch_model.pt"  # the only file in which data may lie, as for the embedded model

Part = tuple[int, int]  # start and end of a message's bytes


def input_shape(layout: Layout) -> tuple[int | None, ...]:
    """Of RGB pieces; None for any number of them, and for any width of whole lines."""
    return (None, 3, LINE_HEIGHT, CHUNK_WIDTH if layout.chunked else None)


def check_onnx_file(path: str | os.PathLike[str], layout: Layout) -> None:
    """Raise CheckpointError unless the ONNX file at `path`, for a network of this layout, is safe for a runtime.

    Rejected are operators other than OPERATORS (such as loops, branches and those of other vendors), functions, data in
    files other than the weights beside it, and any inputs but a single one of `input_shape` in float32.
    """
    try:
        check_regular(path)
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _check_model(content, input_shape(layout))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); export or download it") from error
    except _UnsafeError as error:
        raise CheckpointError(
            f"{path}: refused, {error}; make the file with `ms-ocr export onnx`, or download ModelScope's again"
        ) from error
    except (ValueError, IndexError) as error:  # an empty file cannot be mapped; UnicodeDecodeError is a ValueError
        raise CheckpointError(f"{path}: truncated or not an ONNX file; export or download it again") from error


class _UnsafeError(ValueError):
    """What makes the file unsafe."""


def _check_model(content: mmap.mmap, expected: tuple[int | None, ...]) -> None:
    graphs = []
    for number, part in _fields(content, (0, len(content))):
        if number == 7:
            graphs.append(part)
        elif number == 25:
            raise _UnsafeError("it defines functions")
    if len(graphs) != 1:
        raise ValueError("no graph, or several")
    stored, inputs, outputs, nodes = set(), [], 0, 0
    for number, part in _fields(content, graphs[0]):
        if number == 1:
            nodes += 1
            _check_node(content, part)
        elif number == 5:
            stored.add(_check_tensor(content, part))
        elif number == 11:
            inputs.append(part)
        elif number == 12:
            outputs += 1
        elif number == 15:
            raise _UnsafeError("it holds sparse tensors")
        if nodes > _MOST_NODES:
            raise _UnsafeError(f"it has more than {_MOST_NODES} operators")
    given = [value for part in inputs if (value := _value(content, part))[0] not in stored]
    if len(given) != 1 or not outputs:
        raise _UnsafeError(f"it has {len(given)} inputs and {outputs} outputs, where one and at least one are read")
    _, kind, shape = given[0]
    fits = len(shape) == len(expected) and all(None in pair or pair[0] == pair[1] for pair in zip(shape, expected))
    if kind != _FLOAT or not fits:
        raise _UnsafeError(f"its input is not float32 of shape ({', '.join(str(one or 'any') for one in expected)})")


def _check_node(content: mmap.mmap, node: Part) -> None:
    operator, domain = b"", b""
    for number, part in _fields(content, node):
        if number == 4:
            operator = content[slice(*part)]
        elif number == 7:
            domain = content[slice(*part)]
        elif number == 5:
            for inner, value in _fields(content, part):
                if inner in (6, 11):
                    raise _UnsafeError("an operator contains a subgraph, as loops and branches do")
                if inner in (5, 10):
                    _check_tensor(content, value)
                elif inner in (22, 23):
                    raise _UnsafeError("it holds sparse tensors")
    if domain not in (b"", b"ai.onnx") or operator.decode("utf-8") not in OPERATORS:
        name = (domain + b"." + operator if domain else operator)[:80].decode("ascii", "backslashreplace")
        raise _UnsafeError(f"it has the operator {name}, which no file of this package or of ModelScope has")


def _check_tensor(content: mmap.mmap, tensor: Part) -> bytes:
    """Check a tensor; returns its name."""
    name = b""
    for number, (start, stop) in _fields(content, tensor):
        if number == 8:
            name = content[start:stop]
        elif number == 13:
            _check_entry(content, (start, stop))
    return name


def _check_entry(content: mmap.mmap, entry: Part) -> None:
    """Check one entry of a data location: a bare file name without a path; the runtime itself checks the length."""
    key, value = (content[slice(*next(_numbered(content, entry, number), (0, 0)))] for number in (1, 2))
    if key not in (b"location", b"offset", b"length") or (key == b"location" and value != _BESIDE):
        raise _UnsafeError(f"its data are in files other than {_BESIDE.decode()}")


def _value(content: mmap.mmap, value: Part) -> tuple[bytes, int, list[int | None]]:
    """Name, type and shape of an input; None for a dimension that is not fixed."""
    name, kind, shape = b"", 0, []
    for number, part in _fields(content, value):
        if number == 1:
            name = content[slice(*part)]
        for tensor in _numbered(content, part, 1) if number == 2 else ():  # of TypeProto
            for inner, (start, stop) in _fields(content, tensor):
                if inner == 1:
                    kind = start
                elif inner == 2:
                    lengths = [dict(_fields(content, one)) for one in _numbered(content, (start, stop), 1)]
                    shape = [length[1][0] if 1 in length else None for length in lengths]
    return name, kind, shape


def _numbered(content: mmap.mmap, message: Part, wanted: int) -> Iterator[Part]:
    return (part for number, part in _fields(content, message) if number == wanted)


def _fields(content: mmap.mmap, message: Part) -> Iterator[tuple[int, Part]]:
    """Number and byte range of each field; for a varint its value twice. Raises ValueError or IndexError."""
    position, end = message
    while position < end:
        tag, position = _varint(content, position)
        kind = tag & 7
        if kind == _BYTES:
            length, position = _varint(content, position)
            if position + length > end:
                raise ValueError("a field that ends beyond its message")
            yield tag >> 3, (position, position + length)
            position += length
        elif kind == _VARINT:
            value, position = _varint(content, position)
            yield tag >> 3, (value, value)
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")


def _varint(content: mmap.mmap, position: int) -> tuple[int, int]:
    value = content[position]
    if value < 0x80:
        return value, position + 1
    value &= 0x7F
    for shift in range(7, 70, 7):
        position += 1
        byte = content[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
    raise ValueError("a number of more than 64 bits")
