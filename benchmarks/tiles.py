"""An alphabet of noise, and a head for a random network that reads it: weights as confident as trained ones.

With random weights, classes are close together everywhere, while a trained network hesitates in few columns; the cost
of checking those, and how many texts a lower precision changes, can only be measured with weights that read. So lines
are tiles of noise side by side, nine columns each, and a linear head is fitted by ridge regression (Hoerl and Kennard,
1970) to the random network's columns: the middle of a tile is its character, the others are blank.
"""

import numpy as np
import torch

from ms_ocr_handwritten.geometry import CHUNK_COLUMNS, CHUNK_WIDTH, COLUMN_WIDTH, LINE_HEIGHT
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT

IDS = range(2, 7643, 191)  # of the characters; id 1 fails upstream
TILE_COLUMNS = 9  # a divisor of the 63 columns between chunks, so that every chunk begins with a whole tile
TILES = np.random.default_rng(1).integers(0, 256, (len(IDS), LINE_HEIGHT, TILE_COLUMNS * COLUMN_WIDTH), np.uint8)
CHUNKS, BATCH = 256, 8  # number of chunks for fitting the head, and per forward pass
RIDGE = 1e-4
MIDDLE = TILE_COLUMNS // 2
SCALE = 20.0  # the logit of a certain character
NEVER = -1e4  # the bias of other characters


def tile_line(width: int, random: np.random.Generator) -> np.ndarray:
    """A line of random tiles, the last one truncated: grey uint8 (32, width)."""
    return _line(random.integers(0, len(TILES), -(-width // TILES.shape[2])), width)


def _line(tiles: np.ndarray, width: int) -> np.ndarray:
    return np.concatenate(TILES[tiles], axis=1)[:, :width]


def fit_head(network: ConvNextViT) -> float:
    """Give `network`, in evaluation mode, a head that reads tiles; returns the share of columns it reads correctly."""
    grey, classes = _samples(np.random.default_rng(2))
    with torch.inference_mode():
        columns = torch.cat([network.encode(part) for part in grey.split(BATCH)]).flatten(0, 1).double()  # (M, D)
    mean = columns.mean(0)
    inputs = torch.cat([columns - mean, torch.ones(len(columns), 1)], 1)
    wanted = torch.nn.functional.one_hot(classes, 1 + len(IDS)).double()
    ridge = RIDGE * len(columns) * torch.eye(inputs.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ wanted)  # (D + 1, 1 + characters)
    head, ids = network.vitstr.head, [0, *IDS]
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(NEVER)
        head.weight[ids] = SCALE * weights[:-1].T.float()
        head.bias[ids] = SCALE * (weights[-1] - mean @ weights[:-1]).float()
    return ((inputs @ weights).argmax(1) == classes).float().mean().item()


def _samples(random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Chunks float32 (N, 1, 32, 300) in [0, 1], every other one full, and the class of each column, int64 (75 N,)."""
    grey = np.zeros((CHUNKS, 1, LINE_HEIGHT, CHUNK_WIDTH), np.float32)
    classes = np.zeros((CHUNKS, CHUNK_COLUMNS), np.int64)
    for index in range(CHUNKS):
        width = CHUNK_WIDTH if index % 2 else int(random.integers(LINE_HEIGHT, CHUNK_WIDTH))
        tiles = random.integers(0, len(TILES), -(-width // TILES.shape[2]))
        grey[index, 0, :, :width] = _line(tiles, width) / np.float32(255)
        inner = np.repeat(tiles + 1, TILE_COLUMNS) * (np.arange(len(tiles) * TILE_COLUMNS) % TILE_COLUMNS == MIDDLE)
        whole = width // COLUMN_WIDTH
        classes[index, :whole] = inner[:whole]
    return torch.from_numpy(grey), torch.from_numpy(classes.ravel())
