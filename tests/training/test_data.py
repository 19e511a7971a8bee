"""Photographs and crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from condic.errors import InputError
from condic.training.data import CropSampler, load_photographs


def test_folders_and_tar_packs_are_read(photographs: Path) -> None:
    loaded = load_photographs([photographs], 128)
    assert [x.shape for x in loaded.images] == [(160, 192, 3)] * 5
    assert loaded.skipped == []


def test_broken_and_tiny_images_are_skipped_and_named(photographs: Path) -> None:
    (photographs / "broken.jpg").write_bytes((photographs / "0.jpg").read_bytes()[:300])
    (photographs / "no.jpg").write_text("no image")
    Image.new("RGB", (127, 500)).save(photographs / "tiny.png")
    loaded = load_photographs([photographs], 128)
    assert len(loaded.images) == 5
    reasons = {Path(name).name: reason for name, reason in loaded.skipped}
    assert reasons.keys() == {"broken.jpg", "no.jpg", "tiny.png"}
    assert reasons["no.jpg"] == "not an image that Pillow reads"
    assert "127x500" in reasons["tiny.png"]


def test_nothing_usable_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no picture")
    with pytest.raises(InputError, match="no usable photograph"):
        load_photographs([tmp_path], 128)
    with pytest.raises(InputError, match="no such file"):
        load_photographs([tmp_path / "missing"], 128)
    (tmp_path / "bad.tar").write_bytes(b"not a tar")
    with pytest.raises(InputError, match=r"bad\.tar"):
        load_photographs([tmp_path / "bad.tar"], 128)


def test_a_batch_depends_on_seed_and_step_alone(photographs: Path) -> None:
    images = load_photographs([photographs], 128).images
    sampler = CropSampler(images, 128, 4, 64, seed=7)
    crops, levels = sampler.at(11)
    assert crops.shape == (4, 128, 128, 3)
    assert crops.dtype == np.uint8
    assert ((levels >= 0) & (levels < 64)).all()
    stream = sampler.stream(10, workers=2)
    next(stream)
    streamed, streamed_levels = next(stream)
    stream.close()
    assert np.array_equal(streamed, crops)
    assert np.array_equal(streamed_levels, levels)
    assert not np.array_equal(CropSampler(images, 128, 4, 64, seed=8).at(11)[0], crops)
