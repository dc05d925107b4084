"""Long pages of text, kept compressed: a page of 70 MB takes 3 MB, and goes out as it is to whoever takes gzip.

One rule: the text is never in memory as a whole, neither while it is written nor while it is sent. Sections are written
in any order and stand one after the other.
"""

import struct
import zlib
from collections.abc import Iterator

from msgspec import Struct

_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
_LEVEL = 1
"""What is repeated so often is small at any level."""
PIECE = 256 * 1024
"""Bytes of text that are handed on at once."""


class Packed(Struct, frozen=True):
    """A page: its text as raw deflate blocks, none of which is the last one."""

    blocks: bytes = b""
    checksum: int = 0
    size: int = 0

    def gzip(self, more: bytes = b"") -> bytes:
        """Return the page and more text as one gzip member."""
        end = _compressor()
        total = struct.pack("<LL", zlib.crc32(more, self.checksum), (self.size + len(more)) % 2**32)
        return b"".join((_GZIP_HEAD, self.blocks, end.compress(more), end.flush(), total))

    def texts(self) -> Iterator[bytes]:
        """Yield the page as text, piece by piece."""
        return _texts(self.blocks)


class Packer:
    """A page that is being written."""

    def __init__(self) -> None:
        self._sections: dict[str, _Section] = {}

    def add(self, section: str, text: str, *, head: str = "") -> None:
        """Add text to a section; ``head`` begins it where it is new."""
        written = self._sections.get(section)
        if written is None:
            written = self._sections[section] = _Section()
            written.add(head)
        written.add(text)

    def packed(self) -> Packed:
        """Return the page, sections in the order of their first text."""
        sections = [section.ended() for section in self._sections.values()]
        checksum = size = 0
        for blocks in sections:
            for text in _texts(blocks):
                checksum, size = zlib.crc32(text, checksum), size + len(text)
        return Packed(b"".join(sections), checksum, size)


class _Section:
    def __init__(self) -> None:
        self._compressor = _compressor()
        self._blocks: list[bytes] = []

    def add(self, text: str) -> None:
        if blocks := self._compressor.compress(text.encode()):
            self._blocks.append(blocks)

    def ended(self) -> bytes:
        """Return the blocks, ended where a byte ends, so that others may follow."""
        return b"".join((*self._blocks, self._compressor.flush(zlib.Z_SYNC_FLUSH)))


def _compressor() -> "zlib._Compress":
    return zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS)


def _texts(blocks: bytes) -> Iterator[bytes]:
    reader, left = zlib.decompressobj(wbits=-zlib.MAX_WBITS), blocks
    while text := reader.decompress(left, PIECE):
        yield text
        left = reader.unconsumed_tail
