"""Turn a training's output/ into the embedded model: fp16 weights, the same as ONNX, configuration and vocabulary.

How to train goes with the recipe; what the embedded configuration says of training is the repository's default, meant
for fine-tuning.

    python recipe/embed.py WORK_DIR/output ms_ocr_handwritten/assets
"""

import sys
from pathlib import Path

import torch

from ms_ocr_handwritten.atomic import write_atomically
from ms_ocr_handwritten.config import read_json
from ms_ocr_handwritten.model_dir import ONNX_FILE, ModelDir
from ms_ocr_handwritten.nets.convnextvit import load_network, read_weights
from ms_ocr_handwritten.onnx.export import export_onnx
from ms_ocr_handwritten.training.checkpoints import as_json, save_torch


def main(source: Path, assets: Path) -> None:
    files = ModelDir.open(source)
    weights = {f"recognizer.{name}": value.half() for name, value in read_weights(files.require_weights()).items()}
    save_torch(weights, assets / "pytorch_model.pt")
    write_atomically(assets / "vocab.txt", (source / "vocab.txt").read_bytes())
    default = read_json(Path(__file__).parent.parent / "configuration.json")
    raw = files.raw | {part: default[part] for part in ("train", "evaluation")}
    write_atomically(assets / "configuration.json", as_json(raw).encode("utf-8"))
    network = load_network(ModelDir.open(assets).configuration.network, assets / "pytorch_model.pt")
    export_onnx(network, assets / ONNX_FILE, half_weights=True, weights=assets / "pytorch_model.pt")
    sizes = ", ".join(
        f"{name} {(assets / name).stat().st_size / 1e6:.1f} MB" for name in ("pytorch_model.pt", ONNX_FILE)
    )
    print(f"{sum(map(torch.numel, weights.values())):,} parameters: {sizes}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
