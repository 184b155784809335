"""Single columns as training samples: chunks of synthetic lines with known character positions, and their loss."""

import numpy as np
import torch
from torch.utils.data import Dataset

from ms_ocr_handwritten.ctc import required_columns
from ms_ocr_handwritten.geometry import CHUNK_COLUMNS, CHUNK_WIDTH, COLUMN_WIDTH, LINE_HEIGHT
from ms_ocr_handwritten.image import line_canvas, load_image
from ms_ocr_handwritten.synth.line import LineSynthesizer
from ms_ocr_handwritten.training.ctc_loss import rows_at_once
from ms_ocr_handwritten.vocab import Vocabulary, fold_full_width

LINES_PER_CHUNK = 8  # at most; a chunk is filled with lines no wider than the remaining room
LEAST_ROOM = 28  # px; smaller remainders stay empty
BLANK_WEIGHT = 0.15  # of a column that is not the middle of a character


class ColumnDataset(Dataset):
    """Chunks of synthetic lines side by side, and the targets of their columns.

    sparse: share of chunks with one line and nothing after it, like short lines when they are read.
    Items: grey float32 (32, 300) in [0, 1]; int64 (3, 75): class of each column; 1 where blank is equally acceptable
    (columns beside the middle of a character), 0 elsewhere; the ids of the whole chunk's text, 0 after its end.
    """

    def __init__(
        self, synthesizer: LineSynthesizer, vocabulary: Vocabulary, start: int, stop: int, sparse: float
    ) -> None:
        self.synthesizer, self.vocabulary, self.sparse = synthesizer, vocabulary, sparse
        self.start, self.stop = start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        grey = np.zeros((LINE_HEIGHT, CHUNK_WIDTH), np.float32)
        classes = np.zeros(CHUNK_COLUMNS, np.int64)  # blank
        either = np.zeros(CHUNK_COLUMNS, np.int64)
        text: list[int] = []
        random = np.random.default_rng((self.synthesizer.seed, 1, self.start + index))
        sparse = random.random() < self.sparse
        left = 0
        for part in range(LINES_PER_CHUNK):
            room = int(random.integers(LINE_HEIGHT, CHUNK_WIDTH)) if sparse else CHUNK_WIDTH - left
            line = self.synthesizer.sample((self.start + index) * LINES_PER_CHUNK + part, room)
            canvas = line_canvas(load_image(line.image))
            ids = self.vocabulary.encode(fold_full_width(line.text))
            if left + canvas.width > CHUNK_WIDTH or required_columns(text + ids) > CHUNK_COLUMNS:
                continue
            grey[:, left : left + canvas.width] = canvas.grey[:, : canvas.width]
            scale = LINE_HEIGHT / line.image.shape[0]
            at = [(left + (x0 + x1) / 2 * scale) / COLUMN_WIDTH for x0, x1 in line.boxes]
            middles = [min(int(x), CHUNK_COLUMNS - 1) for x in at]
            for middle, id in zip(middles, ids):
                for beside in (middle - 1, middle + 1):
                    if 0 <= beside < CHUNK_COLUMNS:
                        classes[beside], either[beside] = id, 1
            for blank in [left // COLUMN_WIDTH, *((a + b) // 2 for a, b in zip(middles, middles[1:]) if b - a > 1)]:
                classes[blank] = either[blank] = 0
            for middle, id in zip(middles, ids):
                classes[middle], either[middle] = id, 0
            text += ids
            left += canvas.width
            if sparse or CHUNK_WIDTH - left < LEAST_ROOM:
                break
        return grey, np.stack([classes, either, np.pad(text, (0, CHUNK_COLUMNS - len(text)))])


class ColumnLoss(torch.autograd.Function):
    """Weighted sum over columns of -log p(class), or of -log(p(class) + p(blank)) where `either`.

    The gradient, softmax minus target, is computed at once, some columns at a time: with thousands of classes the
    cost of the plain formula is in its passes over memory.
    """

    @staticmethod
    def forward(context, logits, classes, either, weight):  # (M, C) any float type, (M,), (M,) bool, (M,)
        gradient, total = torch.empty_like(logits), 0.0
        parts = (logits, gradient, classes, either, weight)
        for some, slope, ids, both, scale in zip(*(part.split(rows_at_once(logits.device)) for part in parts)):
            probabilities = some.float().softmax(-1)
            rows = torch.arange(len(ids), device=ids.device)
            named = probabilities[rows, ids]
            blank = probabilities[:, Vocabulary.BLANK] * both
            sure = (named + blank).clamp(min=1e-30)
            total -= (scale * sure.log()).sum()
            probabilities[rows, ids] -= named / sure
            probabilities[:, Vocabulary.BLANK] -= blank / sure
            slope.copy_(probabilities.mul_(scale[:, None]))
        context.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(context, gradient):
        return context.saved_tensors[0] * gradient, None, None, None


def column_loss(logits: torch.Tensor, classes: torch.Tensor, either: torch.Tensor) -> torch.Tensor:
    """(M, C), (M,), (M,) bool -> scalar: the mean over characters, blanks weighted by BLANK_WEIGHT."""
    middles = (classes != Vocabulary.BLANK) & ~either
    weight = torch.where(middles, 1.0, BLANK_WEIGHT) / middles.sum().clamp(min=1)
    return ColumnLoss.apply(logits, classes, either, weight)
