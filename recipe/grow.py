"""Add to a model the characters that the synthesiser draws but the model cannot read yet, with nearly trained rows.

    python recipe/grow.py --inputs DIR --model MODEL_DIR --out DIR

Characters are appended, so existing ids and rows of the head stay unchanged, bit for bit. New rows are trained on the
frozen network: chunks with new and other characters are drawn and encoded once; then only the new rows are trained
to separate their columns from those of the old classes. DIR gets configuration.json, vocab.txt and pytorch_model.pt.
"""

import argparse
from pathlib import Path

import cv2
import torch
from columns import ColumnDataset
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT
from ms_ocr_handwritten.nets.weights import load_network
from ms_ocr_handwritten.synth import charset
from ms_ocr_handwritten.synth.line import LineSynthesizer
from ms_ocr_handwritten.synth.text import KINDS
from ms_ocr_handwritten.training.checkpoints import as_json, save_torch
from ms_ocr_handwritten.training.prepare import grow_head

MIX = dict.fromkeys(KINDS, 0.0) | {"forms": 0.75, "words": 0.15, "single": 0.1}
ROUNDS, BATCH, RATE = 24, 2048, 4e-3


def encoded_columns(network: ConvNextViT, dataset: ColumnDataset, workers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (M, D) bf16 and classes (M,) of the middle of each character and of as many blank columns."""
    loader = DataLoader(
        dataset, 32, num_workers=workers, multiprocessing_context="fork", worker_init_fn=lambda _: cv2.setNumThreads(0)
    )
    features, classes = [], []
    for grey, targets in tqdm(loader, disable=None):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            columns = network.encode(grey[:, None]).flatten(0, 1)
        ids, either = targets[:, 0].flatten(), targets[:, 1].flatten() > 0
        keep = ~either & ((ids > 0) | (torch.rand(len(ids)) < 0.15))
        features.append(columns[keep].bfloat16())
        classes.append(ids[keep])
    return torch.cat(features), torch.cat(classes)


def learn_rows(head: torch.nn.Linear, old: int, features: torch.Tensor, classes: torch.Tensor) -> None:
    """Train the rows of `head` from number `old` on; the others stay unchanged."""
    weight, bias = (p.detach()[old:].clone().requires_grad_() for p in (head.weight, head.bias))
    optimizer = torch.optim.AdamW([weight, bias], lr=RATE, weight_decay=1e-3)
    steps = ROUNDS * -(-len(classes) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    fixed, shift = head.weight.detach()[:old].bfloat16(), head.bias.detach()[:old]
    for step in range(steps):
        some = torch.randint(len(classes), (BATCH,))
        x = features[some]
        known = (x @ fixed.T).float() + shift
        logits = torch.cat([known, x.float() @ weight.T + bias], 1)
        loss = F.cross_entropy(logits, classes[some])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            new = classes[some] >= old
            right = logits.argmax(-1) == classes[some]
            shares = ", ".join(f"{name} {right[own].float().mean():.3f}" for name, own in (("new", new), ("old", ~new)))
            print(f"step {step}: loss {loss:.3f}, right: {shares}")
    with torch.no_grad():
        head.weight[old:], head.bias[old:] = weight, bias


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", required=True, help="output of `python -m ms_ocr_handwritten.synth.fetch`")
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--chunks", type=int, default=6000)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    files = ModelDir.open(arguments.model)
    network = load_network(files.configuration.network, files.require_weights())
    known = files.vocabulary.characters
    vocabulary = files.vocabulary.grow(c for c in charset.characters() if c not in known)
    old = network.config.num_classes
    grow_head(network, vocabulary.classes, seed=1)
    synthesizer = LineSynthesizer(arguments.inputs, seed=77, degrade=0.5, kinds=tuple(MIX.items()))
    dataset = ColumnDataset(synthesizer, vocabulary, 0, arguments.chunks, sparse=0.2)
    learn_rows(network.vitstr.head, old, *encoded_columns(network.eval(), dataset, arguments.workers))
    arguments.out.mkdir(parents=True, exist_ok=True)
    vocabulary.save(arguments.out / "vocab.txt")
    raw = files.raw
    raw["model"]["network"]["num_classes"] = vocabulary.classes
    (arguments.out / "configuration.json").write_bytes(as_json(raw).encode("utf-8"))
    save_torch(network.state_dict(), arguments.out / "pytorch_model.pt")


if __name__ == "__main__":
    main()
