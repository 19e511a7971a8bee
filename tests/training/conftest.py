"""Photographs made on the spot: smooth colour fields with edges, as files and tar packs."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("safetensors")


def picture(seed: int, height: int = 160, width: int = 192) -> np.ndarray:
    """uint8 [height, width, 3] with low and high frequencies."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    field = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    field[:, width // 2 :] -= 40
    return np.clip(field + rng.normal(0, 4, field.shape), 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray) -> bytes:
    """JPEG bytes of an array."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder with three images in files and two in a tar pack."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for k in range(3):
        (folder / f"{k}.jpg").write_bytes(jpeg(picture(k)))
    with tarfile.open(folder / "pack.tar", "w") as pack:
        for k in (3, 4):
            data = jpeg(picture(k))
            member = tarfile.TarInfo(f"{k}.jpg")
            member.size = len(data)
            pack.addfile(member, io.BytesIO(data))
    return folder
