"""A compressed image that is looked at before it is decoded, if at all. Imports no numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from condic.files import Source, name_of, named, read_source
from condic.runtime.bitstream import MAGIC, METADATA, Flags, Limits, read_stream
from condic.runtime.metadata import Metadata, unpack_metadata
from condic.runtime.shipped import model_of

if TYPE_CHECKING:
    from condic.runtime.codec import Codec, Decoded


def open(
    source: Source, model: str | Path | None = None, backend: str = "auto", limits: Limits | None = None
) -> CodedImage:
    """A condic file, given as bytes, by path, or open for reading: what it is, and ways to decode it.

    `model` (a shipped model's name or a bundle's path; by default the shipped one that the file names) and `backend`
    are for decoding. Raises InputError if the file cannot be read, StreamError if it is no condic file, is damaged, or
    is over the limits; the message names the file.
    """
    return CodedImage(source, model, backend, limits)


class CodedImage:
    """A condic file in memory. Its checksums have been verified; its model is loaded when something is decoded.

    Attributes:
        size: width and height in pixels.
        mode: `L`, `LA`, `RGB` or `RGBA`, as Pillow calls them.
        quality: the level, 0 to 63.
        model_id: the first 8 bytes of the id of the model that decodes the file, in hexadecimal.
        metadata: ICC profile, EXIF and XMP.
        data: the file.
    """

    def __init__(
        self, source: Source, model: str | Path | None = None, backend: str = "auto", limits: Limits | None = None
    ) -> None:
        """See `open`."""
        self.data = bytes(read_source(source, MAGIC))  # a copy of what can change: it is checked now and decoded later
        with named(source):
            stream = read_stream(self.data, limits)
            header, self.metadata = stream.header, Metadata()
            if header.flags & Flags.METADATA:
                self.metadata = unpack_metadata(stream.section(METADATA).payload, limits)
        self.size = header.width, header.height
        self.mode = ("L" if header.flags & Flags.GREY else "RGB") + ("A" if header.flags & Flags.ALPHA else "")
        self.quality, self.model_id = header.quality, header.bundle_id.hex()
        self._source = self.data if isinstance(source, bytes | bytearray | memoryview) else name_of(source)
        self._model, self._backend, self._limits = model, backend, limits

    def __repr__(self) -> str:
        width, height = self.size
        return f"<CodedImage {width}x{height} {self.mode}, quality {self.quality}, {len(self.data)} bytes>"

    def decode(self, region: Sequence[int] | None = None, *, latents: bool = False) -> Decoded:
        """The image, uint8 [H, W] or [H, W, 2..4], and its latents if they are asked for. Raises CondicError.

        `region`: left, top, width and height in pixels of the only part that is wanted.
        """
        with named(self._source):
            return self._codec().decode(self.data, limits=self._limits, region=region, latents=latents)

    def preview(self, reduction: int = 1, *, latents: bool = False) -> Decoded:
        """A rough image from the first part of the file alone, and the latents in that if they are asked for.

        Raises CondicError.

        It is as large as the model makes it: dcic-sgp's has the image's size, cic-sr's a quarter of its sides. With a
        `reduction` of n (8, 16 or 32) it has ceil(H / n) rows and ceil(W / n) columns.
        """
        with named(self._source):
            return self._codec().preview(self.data, limits=self._limits, reduction=reduction, latents=latents)

    def _codec(self) -> Codec:
        from condic.functions import open_codec

        return open_codec(self._model or model_of(bytes.fromhex(self.model_id)), self._backend)
