"""The raw Snappy format, in which Reverb stores the tensors of a chunk.

The wheels bring no module for it. Compressing here only wraps: seeds are written once and the file
around them is compressed anyway.
"""

from __future__ import annotations


def decompress(data: bytes) -> bytes:
    """The original bytes.

    Raises:
        ValueError: The data is damaged.
    """
    try:
        size, at = _read_size(data)
        out = bytearray()
        while at < len(data):
            at = _element(data, at, out)
    except IndexError:
        raise ValueError("it ends too early") from None
    if len(out) != size:
        raise ValueError(f"it holds {len(out)} bytes and says {size}")
    return bytes(out)


def _read_size(data: bytes) -> tuple[int, int]:
    """The length in front, seven bits a byte, and where the elements begin."""
    size = at = 0
    while True:
        size |= (data[at] & 0x7F) << (7 * at)
        at += 1
        if data[at - 1] < 0x80:
            return size, at


def _element(data: bytes, at: int, out: bytearray) -> int:
    """Appends what the element at `at` stands for; returns where the next begins."""
    tag = data[at]
    at += 1
    if tag & 3 == 0:  # bytes as they are
        length = tag >> 2
        if length >= 60:
            extra = length - 59
            length = int.from_bytes(data[at : at + extra], "little")
            at += extra
        end = at + length + 1
        if end > len(data):
            raise IndexError
        out += data[at:end]
        return end
    if tag & 3 == 1:  # a copy of what stands `offset` before the end
        length, offset = 4 + (tag >> 2 & 7), (tag >> 5) << 8 | data[at]
        at += 1
    else:
        width = 2 if tag & 3 == 2 else 4
        length, offset = 1 + (tag >> 2), int.from_bytes(data[at : at + width], "little")
        at += width
    if not 0 < offset <= len(out):
        raise ValueError("it refers to bytes before its start")
    copy = out[len(out) - offset : len(out) - offset + length]
    while len(copy) < length:  # it overlaps its own end: a repetition
        copy += copy[: length - len(copy)]
    out += copy
    return at


def wrap(data: bytes) -> bytes:
    """`data` as one literal: valid Snappy, not smaller."""
    head, size = bytearray(), len(data)
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    if data:
        head.append(63 << 2)  # a literal whose length follows in four bytes
        head += (len(data) - 1).to_bytes(4, "little")
    return bytes(head) + data
