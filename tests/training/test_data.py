"""Photographs and crops."""

from __future__ import annotations

import tarfile
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


def test_photographs_have_the_pixels_that_the_codec_is_given(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 128 * 130).reshape(128, 130).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    turned = Image.new("RGB", (140, 128), (9, 9, 9))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGBA", (128, 128), (255, 0, 255, 0)).save(tmp_path / "clear.png")
    with tarfile.open(tmp_path / "more.tar.gz", "w:gz") as pack:
        pack.add(tmp_path / "turned.jpg", "turned.jpg")
    loaded = load_photographs([tmp_path], 128)
    assert [x.shape for x in loaded.images] == [(128, 130, 3), (140, 128, 3), (140, 128, 3)]
    assert np.abs(loaded.images[0][:, :, 1] - deep / 257).max() <= 0.5
    ((name, reason),) = loaded.skipped
    assert (Path(name).name, reason.partition(":")[0]) == ("clear.png", "transparent")


def test_nothing_usable_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no picture")
    with pytest.raises(InputError, match="no usable photograph"):
        load_photographs([tmp_path], 128)
    Image.new("RGB", (64, 80)).save(tmp_path / "small.png")
    with pytest.raises(InputError, match=r"no usable photograph in .* \(1 skipped; .*small\.png: 64x80 is below 128\)"):
        load_photographs([tmp_path / "small.png"], 128)
    with pytest.raises(InputError, match="no such file"):
        load_photographs([tmp_path / "missing"], 128)
    (tmp_path / "bad.tar").write_bytes(b"not a tar")
    with pytest.raises(InputError, match=r"bad\.tar"):
        load_photographs([tmp_path / "bad.tar"], 128)
    with tarfile.open(tmp_path / "cut.tar.gz", "w:gz") as pack:
        pack.add(tmp_path / "bad.tar", "a.jpg")
    (tmp_path / "cut.tar.gz").write_bytes((tmp_path / "cut.tar.gz").read_bytes()[:60])
    with pytest.raises(InputError, match=r"cut\.tar\.gz: not a readable tar file"):
        load_photographs([tmp_path / "cut.tar.gz"], 128)
    (tmp_path / "note.tar.md5").write_text("no tar file")
    with pytest.raises(InputError, match="no usable photograph"):
        load_photographs([tmp_path / "note.tar.md5"], 128)


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
