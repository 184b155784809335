"""Turn a training's output/ into the embedded model: fp16 weights, configuration and vocabulary, and an ONNX graph.

The graph holds no weights: it refers to their positions in pytorch_model.pt, which both runtimes map into memory, so
that the package contains them only once.

Training settings are part of the recipe; those in the embedded configuration are the repository's defaults, meant
for fine-tuning.

    python recipe/embed.py WORK_DIR/output ms_ocr_handwritten/assets
"""

import struct
import sys
import zipfile
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from ms_ocr_handwritten.atomic import write_atomically
from ms_ocr_handwritten.config_file import read_json
from ms_ocr_handwritten.model_dir import ONNX_FILE, ModelDir
from ms_ocr_handwritten.nets.weights import load_network, read_weights
from ms_ocr_handwritten.onnx.export import check_onnx, export_onnx
from ms_ocr_handwritten.training.checkpoints import as_json, save_torch

HEADER = struct.Struct("<26xHH")  # of a file in a zip archive: the lengths of its name and of its extra field
LEAST = 256  # bytes, minimum size of a tensor that is looked up among the weights


def where_tensors_lie(weights: Path) -> dict[bytes, tuple[int, bool]]:
    """Bytes of each tensor of a weights file, and of each transposed matrix -> (offset, whether transposed)."""
    content, places = weights.read_bytes(), {}
    stored = {}
    with zipfile.ZipFile(weights) as archive:
        for entry in archive.infolist():
            if "/data/" in entry.filename:
                start = entry.header_offset + HEADER.size + sum(HEADER.unpack_from(content, entry.header_offset))
                stored[content[start : start + entry.file_size]] = start
    for value in torch.load(weights, weights_only=True).values():
        array = value.numpy()
        places[array.tobytes()] = stored[array.tobytes()], False
        if array.ndim == 2:
            places.setdefault(array.T.tobytes(), (stored[array.tobytes()], True))
    return places


def share_weights(path: Path, weights: Path) -> None:
    """Remove from the ONNX file at `path` the tensors that `weights` also holds."""
    model, places = onnx.load(path), where_tensors_lie(weights)
    turned = {}
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.nbytes < LEAST or array.tobytes() not in places:
            continue  # a constant of the graph, or a part of a tensor
        offset, turn = places[array.tobytes()]
        if turn:
            del tensor.dims[:]
            tensor.dims.extend(array.T.shape)
            turned[tensor.name] = f"{tensor.name}.turned"
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", weights.name), ("offset", offset), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
    nodes = [helper.make_node("Transpose", [name], [new], name=new, perm=[1, 0]) for name, new in turned.items()]
    for node in model.graph.node:
        node.input[:] = [turned.get(name, name) for name in node.input]
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    write_atomically(path, model.SerializeToString())


DECODER = {"augment_below": 0.9}  # chosen on held-out lines


def main(source: Path, assets: Path) -> None:
    files = ModelDir.open(source)
    weights = {f"recognizer.{name}": value.half() for name, value in read_weights(files.require_weights()).items()}
    save_torch(weights, assets / "pytorch_model.pt")
    write_atomically(assets / "vocab.txt", (source / "vocab.txt").read_bytes())
    default = read_json(Path(__file__).parent.parent / "configuration.json")
    raw = files.raw | {part: default[part] for part in ("train", "evaluation")} | {"decoder": DECODER}
    write_atomically(assets / "configuration.json", as_json(raw).encode("utf-8"))
    network = load_network(ModelDir.open(assets).configuration.network, assets / "pytorch_model.pt")
    export_onnx(network, assets / ONNX_FILE, half_weights=True, weights=assets / "pytorch_model.pt")
    share_weights(assets / ONNX_FILE, assets / "pytorch_model.pt")
    check_onnx(network, assets / ONNX_FILE)
    sizes = ", ".join(
        f"{name} {(assets / name).stat().st_size / 1e6:.1f} MB" for name in ("pytorch_model.pt", ONNX_FILE)
    )
    print(f"{sum(map(torch.numel, weights.values())):,} parameters: {sizes}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
