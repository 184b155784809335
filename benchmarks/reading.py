"""Our time and the builtin's for lines of one, two and three chunks: same process, same random weights, fp32.

    python benchmarks/reading.py [--rounds 15] [--threads 2]

Both pipelines read the same grey arrays one by one, in turn (A B A B ...), so that a drifting machine hits both alike.
Each timed call follows an untimed one of the same pipeline, which brings its own weights into the cache, as in a run of
its own. Prints the median milliseconds per line of each and the median of the ratios, pair by pair; stops if a text
differs.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import ms_ocr_handwritten  # noqa: F401
from ms_ocr_handwritten.config import NetworkConfig
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT
from ms_ocr_handwritten.plugin.registration import upstream_class
from ms_ocr_handwritten.training.checkpoints import upstream_state_dict

ROOT = Path(__file__).parent.parent
WIDTHS = {1: 240, 2: 500, 3: 800}  # px at 32 px height, by the chunks that hold ink


def official_model_dir(folder: Path) -> str:
    """The official sizes with random weights: the time does not depend on what they are."""
    raw = json.loads((ROOT / "configuration.json").read_text(encoding="utf-8"))
    raw["model"].pop("network")
    (folder / "configuration.json").write_text(json.dumps(raw), encoding="utf-8")
    (folder / "vocab.txt").write_text("".join(chr(0x4E00 + i) + "\n" for i in range(7642)) + "\n", encoding="utf-8")
    torch.manual_seed(0)
    network = ConvNextViT(NetworkConfig())
    with torch.no_grad():
        network.vitstr.pos_embed.normal_()
        network.vitstr.head.weight.mul_(3)
    torch.save(upstream_state_dict(network), folder / "pytorch_model.pt")
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        model_dir = official_model_dir(Path(folder))
        from modelscope.pipelines import pipeline

        ours = pipeline("ocr-recognition", model=model_dir, precision="fp32", backend="torch")
        builtin = _builtin(model_dir)
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.rounds} rounds")
        print("chunks  builtin ms  ours ms  builtin/ours")
        for chunks, width in WIDTHS.items():
            line = random.integers(0, 256, (32, width), np.uint8)
            times = {ours: [], builtin: []}
            for _ in range(arguments.rounds):
                texts = []
                for read in (ours, builtin):
                    read(line)
                    start = time.perf_counter()
                    texts.append(read(line)["text"])
                    times[read].append(1000 * (time.perf_counter() - start))
                if texts[0] != texts[1]:
                    raise SystemExit(f"the texts differ: {texts}")
            ratio = statistics.median(b / a for a, b in zip(times[ours], times[builtin]))
            print(f"{chunks:6d}  {statistics.median(times[builtin]):10.1f}  {statistics.median(times[ours]):7.1f}"
                  f"  {ratio:12.2f}")


def _builtin(model_dir: str):
    """ModelScope's own pipeline, model and preprocessor, which this package's registration sets aside."""
    pipeline_class = upstream_class("PIPELINES", "ocr-recognition", "convnextTiny-ocr-recognition")
    model = upstream_class("MODELS", "ocr-recognition", "OCRRecognition")(model_dir)
    preprocessor = upstream_class("PREPROCESSORS", "cv", "ocr-recognition")(model_dir)

    class Builtin(pipeline_class):
        def initiate_single_model(self, model_or_dir, **kwargs):
            return model

    return Builtin(model_dir, preprocessor=preprocessor, device="cpu")


if __name__ == "__main__":
    main()
