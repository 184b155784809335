"""Average the weights of two model directories: what phase 2 learnt without all that it forgot (WiSE-FT, CVPR 2022).

    python recipe/average.py FIRST SECOND SHARE OUT

OUT gets SECOND's configuration and vocabulary, and weights (1 - SHARE) FIRST + SHARE SECOND. Choose SHARE by held-out
lines, never by those that the model is judged by.
"""

import shutil
import sys
from pathlib import Path

from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.nets.convnextvit import read_weights
from ms_ocr_handwritten.training.checkpoints import save_torch


def main(first: Path, second: Path, share: float, out: Path) -> None:
    a, b = (read_weights(ModelDir.open(folder).require_weights()) for folder in (first, second))
    out.mkdir(parents=True)
    for name in ("configuration.json", "vocab.txt"):
        shutil.copy(second / name, out / name)
    save_torch(
        {f"recognizer.{name}": a[name].float().lerp(b[name].float(), share) for name in b}, out / "pytorch_model.pt"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
