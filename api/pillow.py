"""Pillow reads and writes .cdic files once this module is imported.

    import condic.pillow
    from PIL import Image

    image = Image.open("photo.cdic")         # size, mode and info; no model is loaded
    image.load()                             # decodes
    image.save("again.cdic", quality=40)     # or max_bytes=, bpp=, psnr=

Pillow looks for no plugins of its own accord, so something has to import this one. Programs that load the entry-point
group `PIL.plugins` find it there.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageFile, ImageOps

from condic.coded_image import CodedImage
from condic.errors import CondicError, InputError, StreamError
from condic.runtime.bitstream import MAGIC, Limits
from condic.runtime.shipped import DEFAULT_MODEL

FORMAT = "CDIC"


class CdicImageFile(ImageFile.ImageFile):
    """A condic file. `info` has `quality`, `model_id`, and what there is of `icc_profile`, `exif` and `xmp`."""

    format = FORMAT
    format_description = "condic image"
    _coded: CodedImage | None = None
    """What is decoded when pixels are asked for. Copies and pickles have pixels already."""

    def __init__(self, fp: Any, filename: Any, model: str | Path | None = None, backend: str = "auto") -> None:
        self._model, self._backend = model, backend
        super().__init__(fp, filename)

    def _open(self) -> None:
        assert self.fp is not None
        data = self.fp.read()
        try:
            # Pillow has its own limit on pixels, and applies it to what it opens.
            self._coded = CodedImage(data, self._model, self._backend, Limits(pixels=2**32))
        except StreamError as error:
            raise SyntaxError(str(error)) from error
        self._size, self._mode = self._coded.size, self._coded.mode
        self.info = {"quality": self._coded.quality, "model_id": self._coded.model_id}
        metadata = self._coded.metadata
        for name in metadata.sizes():
            self.info[name] = (b"Exif\0\0" if name == "exif" else b"") + getattr(metadata, name)

    def load(self) -> Any:
        """Decodes. Raises OSError, as Pillow's own readers do, for what only decoding finds."""
        if self._coded is not None:
            try:
                pixels = self._coded.decode().image
            except CondicError as error:
                raise OSError(str(error)) from error
            self.im, self._coded = Image.fromarray(pixels).im, None
            if self.fp is not None and self._exclusive_fp:  # Pillow's own file
                self.fp.close()
            self.fp = None
        return Image.Image.load(self)


def register(model: str | Path | None = None, backend: str = "auto") -> None:
    """Tells Pillow how to open .cdic files: with a model (default: the shipped one that a file names) on a backend."""
    Image.register_open(FORMAT, lambda fp, filename: CdicImageFile(fp, filename, model, backend), _accept)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, ".cdic")
    Image.register_mime(FORMAT, "image/x-cdic")


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


def _save(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    """Writes what `condic.encode` makes of the image and the arguments of `save`.

    Metadata of the image is kept; `icc_profile`, `exif` and `xmp` replace it, and None or b"" leaves it out; `strip`
    leaves out all of it. Where EXIF is left out, the image is turned as that says.
    """
    from condic.functions import encode
    from condic.runtime.pictures import as_picture

    options = dict(getattr(image, "encoderinfo", {}))
    given = {name: _bytes_of(name, options[name]) for name in ("icc_profile", "exif", "xmp") if name in options}
    if given:
        turned = None
        if given.get("exif") == b"":
            with suppress(Exception):  # Pillow's reader of broken EXIF raises nearly anything
                turned = ImageOps.exif_transpose(image)
        image = turned or image.copy()
        image.info.update(given)
    picture = as_picture(image)
    picture = replace(picture, metadata=picture.metadata.upright())
    known = ("quality", "max_bytes", "bpp", "psnr", "model", "backend", "strip")
    arguments = {name: options[name] for name in known if name in options}
    fp.write(encode(picture, **({"model": DEFAULT_MODEL} | arguments)))  # type: ignore[arg-type]


def _bytes_of(name: str, value: object) -> bytes:
    """Metadata as `save` is given it. Raises InputError."""
    if isinstance(value, Image.Exif):
        data, held = value.tobytes(), Image.Exif()
        held.load(data)  # `len` of the one that is given counts no directory within it
        return data if len(held) else b""
    if isinstance(value, str) and name == "xmp":
        return value.encode()
    if not isinstance(value, bytes | bytearray | memoryview | None):
        raise InputError(f"{name} is a {type(value).__name__}; give bytes")
    return bytes(value or b"")


register()
