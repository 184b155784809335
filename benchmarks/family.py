"""CRNN and LightweightEdge at official sizes: ModelScope's builtin and this package, same weights, same lines.

Without official weights, random ones are used, with batch norms calibrated on noise, to read lines of noise blocks.
Single calls, then lists of 8 and of `--list-size`; in fp32 every text must equal the builtin's, else the run stops.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from clock import ratio, single_calls, whole_lists
from options import Options
from peers import CONFIGURATION, Builtin, Missing, OwnPipeline
from report import Claim, Section, Table, progress

from ms_ocr_handwritten.config import Configuration
from ms_ocr_handwritten.nets.network import rgb_to_grey
from ms_ocr_handwritten.nets.weights import new_network
from ms_ocr_handwritten.training.checkpoints import upstream_state_dict

KINDS = ("CRNN", "LightweightEdge")
COLUMNS = ("kind", "lines", "reader", "ms a line", "builtin / ours", "texts equal to the builtin's")
WIDEST = 20  # times the height: what the builtin reads without squeezing it
SINGLE, FEW = 5, 8  # lines of the single calls, of the short list
PROMISED = 2.0  # builtin / ours, for the long list


def run(options: Options) -> Section:
    rows, claims, samples = [], [], {}
    random = np.random.default_rng(0)
    ratios = {"alone": SINGLE, f"list of {FEW}": FEW, f"list of {options.list_size}": options.list_size}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            model_dir = random_model_dir(Path(folder), kind)
            own = OwnPipeline(model_dir, options.device, "fp32")
            try:
                builtin = Builtin(model_dir, options.device)
            except Missing as error:
                return Section([Table("CRNN and LightweightEdge", ("",), [(str(error),)])])
            for name, count in ratios.items():
                progress(f"family: {kind}, {name}")
                images = [blocks(one, random) for one in np.linspace(0.5, WIDEST, count)]
                measure = single_calls if name == "alone" else whole_lists
                if count == options.list_size:
                    builtin.choose_batch_size(images[:: max(1, count // 32)])
                rounds = options.heavy_rounds if count == options.list_size else options.rounds
                peer, ours = measure([builtin, own], images, rounds).values()
                faster = ratio(peer.ms, ours.ms)
                equal = sum(one == other for one, other in zip(peer.texts, ours.texts, strict=True))
                if equal < count:
                    raise SystemExit(f"{kind}, {name}: {count - equal} texts differ in fp32")
                rows += [
                    (kind, name, builtin.name, peer.median, None, None),
                    (kind, name, own.name, ours.median, faster, f"{equal} of {count}"),
                ]
                samples[f"{kind}, {name}"] = {builtin.name: peer.ms, own.name: ours.ms}
            claims.append(Claim.at_least(f"{kind}, {name}: builtin / ours", PROMISED, faster))
    note = f"random weights; noise in blocks, of 0.5:1 to {WIDEST}:1"
    return Section([Table("CRNN and LightweightEdge, official sizes, fp32", COLUMNS, rows, note)], claims, samples)


def blocks(ratio: float, random: np.random.Generator) -> np.ndarray:
    """A line of noise blocks, grey, 48 px high and `ratio` times as wide."""
    made = random.integers(0, 256, (4, max(1, int(4 * ratio))), dtype=np.uint8)
    return np.repeat(np.repeat(made, 12, 0), 12, 1)


@torch.no_grad()
def random_model_dir(folder: Path, kind: str) -> str:
    """The official sizes with random weights that output many different characters."""
    raw = json.loads(CONFIGURATION.read_text(encoding="utf-8"))
    raw["model"] = {
        "type": "OCRRecognition",
        "recognizer": kind,
        "inference_kwargs": {"img_height": 32, "img_width": 640, "do_chunking": False},
    }
    (folder / "configuration.json").write_text(json.dumps(raw), encoding="utf-8")
    config = Configuration.parse(raw).network
    characters = [chr(0x4E00 + index) for index in range(config.num_classes - config.first_id)]
    (folder / "vocab.txt").write_text("".join(one + "\n" for one in characters), encoding="utf-8")
    torch.manual_seed(0)
    network, noise = new_network(config), torch.rand(8, 3, 4, 80).repeat_interleave(8, 2).repeat_interleave(8, 3)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(noise)
    # What all columns have in common would give all the same class: remove it in the classifier.
    columns = network.eval().encode(rgb_to_grey(noise)).flatten(0, 1)
    common = torch.linalg.svd(columns, full_matrices=False)[2][:1]
    weight = network.classifier.weight
    weight.sub_(weight @ common.T @ common).mul_(30)
    torch.save(upstream_state_dict(network), folder / "pytorch_model.pt")
    return str(folder)
