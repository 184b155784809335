"""Changes to bytes that have found faults before."""

import random
import struct
import zlib
from collections.abc import Sequence

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000, 100_000)
MOST = 4 * 2**20  # bytes of a mutated file


def mutated(random: random.Random, seed: bytes, others: Sequence[bytes]) -> bytes:
    """`seed` after one to five changes."""
    content = bytearray(seed)
    for _ in range(random.randint(1, 5)):
        random.choice(_CHANGES)(random, content, others)
    if content[:8] == b"\x89PNG\r\n\x1a\n" and random.random() < 0.8:
        return _with_sums(bytes(content[:MOST]))
    return bytes(content[:MOST])


def _place(random: random.Random, content: bytearray) -> int:
    """Headers are hit more often than what follows them."""
    return random.randrange(min(len(content), random.choice((64, 512, 1 << 30))) or 1)


def _flip(random, content, others) -> None:
    for _ in range(random.choice((1, 2, 8, 64))):
        if content:
            content[_place(random, content)] ^= 1 << random.randrange(8)


def _extreme(random, content, others) -> None:
    place, value = _place(random, content), random.choice(EXTREMES)
    size = random.choice((1, 2, 4))
    content[place : place + size] = (value & (256**size - 1)).to_bytes(size, random.choice(("big", "little")))


def _cut(random, content, others) -> None:
    del content[_place(random, content) :]


def _delete(random, content, others) -> None:
    place = _place(random, content)
    del content[place : place + random.choice((1, 2, 4, 16, 256))]


def _repeat(random, content, others) -> None:
    place, size = _place(random, content), random.choice((1, 4, 12, 64, 1024))
    content[place:place] = content[place : place + size] * random.choice((1, 2, 100, 10_000))
    del content[MOST:]


def _splice(random, content, others) -> None:
    other = random.choice(others)
    place, start = _place(random, content), random.randrange(len(other) or 1)
    content[place:place] = other[start : start + random.choice((4, 64, 4096, 1 << 20))]


def _noise(random, content, others) -> None:
    place = _place(random, content)
    content[place : place + 16] = random.randbytes(16)


_CHANGES = (_flip, _flip, _flip, _extreme, _extreme, _extreme, _cut, _delete, _repeat, _splice, _noise)


def _with_sums(png: bytes) -> bytes:
    """A PNG with right checksums, as far as its chunks can be told, so that it is not refused for these alone."""
    parts, position = [png[:8]], 8
    while position + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, position)
        if position + 12 + length > len(png):
            break
        body = png[position + 4 : position + 8 + length]
        parts.append(struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body)))
        position += 12 + length
    return b"".join(parts) + png[position:]
