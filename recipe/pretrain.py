"""First phase of the embedded model's training: classes before alignment.

CTC over thousands of classes learns where characters are very slowly while it does not yet know what they are. The
synthesiser knows where it put each character, so this phase trains the very network on single columns: the column under
the middle of each character is given its class, columns between characters the blank. Cross entropy over a dozen
columns a line replaces CTC; the weights then go to the package's own trainer (recipe/README.md).

    python recipe/pretrain.py --inputs DIR --out DIR --steps 20000

Resumable: run the same command again.
"""

import argparse
import json
import math
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from ms_ocr_handwritten.config import Configuration
from ms_ocr_handwritten.errors import CheckpointError
from ms_ocr_handwritten.geometry import CHUNK_COLUMNS, CHUNK_WIDTH, COLUMN_WIDTH, LINE_HEIGHT
from ms_ocr_handwritten.image import line_canvas
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT, read_torch_file
from ms_ocr_handwritten.synth.line import LineSynthesizer
from ms_ocr_handwritten.training.checkpoints import save_torch
from ms_ocr_handwritten.vocab import Vocabulary, fold_full_width

LINES_PER_CHUNK = 4  # at most: as many as fit
TARGETS = 40  # columns a line at most; the others are left out of the loss


class ColumnDataset(Dataset):
    """Chunks of synthetic lines side by side: grey (32, 300), and the class of up to TARGETS of its columns (-1: none)."""

    def __init__(self, synthesizer: LineSynthesizer, vocabulary: Vocabulary, start: int, stop: int) -> None:
        self.synthesizer, self.vocabulary, self.start, self.stop = synthesizer, vocabulary, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        grey = np.zeros((LINE_HEIGHT, CHUNK_WIDTH), np.float32)
        classes = np.full(CHUNK_COLUMNS, -1, np.int64)
        left = 0
        for part in range(LINES_PER_CHUNK):
            line = self.synthesizer.sample((self.start + index) * LINES_PER_CHUNK + part)
            image = line.image if line.image.ndim == 3 else cv2.cvtColor(line.image, cv2.COLOR_GRAY2BGR)
            canvas = line_canvas(image[:, :, ::-1])
            if left + canvas.width > CHUNK_WIDTH:
                break
            grey[:, left: left + canvas.width] = canvas.grey[:, : canvas.width]
            scale = LINE_HEIGHT / image.shape[0]
            middles = [int((left + (x0 + x1) / 2 * scale) / COLUMN_WIDTH) for x0, x1 in line.boxes]
            ids = self.vocabulary.encode(fold_full_width(line.text))
            for blank in [left // COLUMN_WIDTH, *((a + b) // 2 for a, b in zip(middles, middles[1:]))]:
                classes[blank] = Vocabulary.BLANK
            for middle, id in zip(middles, ids):
                classes[min(middle, CHUNK_COLUMNS - 1)] = id
            left += canvas.width
        classes[min(CHUNK_COLUMNS - 1, left // COLUMN_WIDTH + 1):: 9] = Vocabulary.BLANK  # of the padding
        columns = np.flatnonzero(classes >= 0)[:TARGETS]
        padded = np.full((2, TARGETS), -1, np.int64)
        padded[:, : len(columns)] = columns, classes[columns]
        return grey, padded[0], padded[1]


def rate_at(step: int, steps: int, peak: float, warmup: int = 300) -> float:
    """Linear warm-up, then a cosine to a tenth of the peak (CTC goes on from there)."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", required=True, help="what `python -m ms_ocr_handwritten.synth.fetch` fetched")
    parser.add_argument("--model", required=True, help="model directory: configuration.json and vocab.txt")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)

    vocabulary = Vocabulary.load(Path(arguments.model) / "vocab.txt")
    network = ConvNextViT(Configuration.load(arguments.model).network)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device).train()
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    optimizer = torch.optim.AdamW(network.parameters(), lr=arguments.lr, weight_decay=0.02, fused=True)
    state_file, step = arguments.out / "pretrain_state.pth", 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        state = read_torch_file(state_file)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    except CheckpointError:
        if state_file.exists():
            raise

    synthesizer = LineSynthesizer(arguments.inputs, seed=arguments.seed)
    dataset = ColumnDataset(synthesizer, vocabulary, step * arguments.batch, arguments.steps * arguments.batch)
    loader = DataLoader(dataset, arguments.batch, num_workers=arguments.workers, prefetch_factor=8,
                        multiprocessing_context="fork", worker_init_fn=lambda _: cv2.setNumThreads(0))
    started, seen, right, count, total = time.time(), 0, 0, 0, 0.0
    for grey, columns, classes in loader:
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, arguments.steps, arguments.lr)
        grey, columns, classes = grey[:, None].to(device), columns.to(device), classes.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            encoded = network.encode(grey)  # (N, 75, D)
            rows, cells = (classes >= 0).nonzero(as_tuple=True)
            logits = network.classify(encoded[rows, columns[rows, cells]])
        target = classes[rows, cells]
        loss = F.cross_entropy(logits.float(), target, label_smoothing=0.0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update_parameters(network)
        step += 1
        seen += len(grey)
        characters = target > 0
        right += ((logits.argmax(-1) == target) & characters).sum().item()
        count += characters.sum().item()
        total += loss.item()
        if step % 100 == 0 or step == arguments.steps:
            entry = {"step": step, "loss": total / 100, "accuracy": right / max(1, count),
                     "lines_per_second": seen / (time.time() - started), "lr": optimizer.param_groups[0]["lr"]}
            print(json.dumps(entry), flush=True)
            with open(arguments.out / "pretrain_log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            right, count, total, started, seen = 0, 0, 0.0, time.time(), 0
        if step % 1000 == 0 or step == arguments.steps:
            save_torch({"step": step, "network": network.state_dict(), "average": average.state_dict(),
                        "optimizer": optimizer.state_dict()}, state_file)
            save_torch(average.module.state_dict(), arguments.out / "pytorch_model.pt")


if __name__ == "__main__":
    main()
