"""Average the weights of two model directories, to keep what phase 2 learnt without all it forgot (WiSE-FT, CVPR 2022).

    python recipe/average.py FIRST SECOND SHARE OUT [--lower CLASS BY]

OUT gets SECOND's configuration and vocabulary, and the weights (1 - SHARE) FIRST + SHARE SECOND. Choose SHARE on
held-out lines, never on those used for evaluation. --lower subtracts BY from the biases of the classes from CLASS on:
characters drawn more often in training than people write them then need a higher confidence.
"""

import argparse
import shutil
from pathlib import Path

from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.nets.weights import read_weights
from ms_ocr_handwritten.training.checkpoints import save_torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("share", type=float)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lower", nargs=2, metavar=("CLASS", "BY"), default=("0", "0"))
    arguments = parser.parse_args()
    folders = arguments.first, arguments.second
    a, b = (read_weights(ModelDir.open(folder).require_weights()) for folder in folders)
    arguments.out.mkdir(parents=True)
    for name in ("configuration.json", "vocab.txt"):
        shutil.copy(arguments.second / name, arguments.out / name)
    mean = {name: a[name].float().lerp(b[name].float(), arguments.share) for name in b}
    mean["vitstr.head.bias"][int(arguments.lower[0]) :] -= float(arguments.lower[1])
    save_torch({f"recognizer.{name}": value for name, value in mean.items()}, arguments.out / "pytorch_model.pt")


if __name__ == "__main__":
    main()
