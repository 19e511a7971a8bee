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


def test_names_in_capitals_and_folders_within_folders_are_read(photographs: Path, tmp_path: Path) -> None:
    inner = tmp_path / "all" / "inner"
    inner.mkdir(parents=True)
    (photographs / "0.jpg").rename(inner / "0.JPG")
    with tarfile.open(inner / "MORE.TAR", "w") as pack:
        pack.add(photographs / "1.jpg", "1.JPEG")
        pack.add(photographs, "folder.jpg", recursive=False)
    assert len(load_photographs([tmp_path / "all"], 128).images) == 2


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


@pytest.mark.filterwarnings("error::condic.errors.CondicWarning")
def test_photographs_have_the_pixels_that_the_codec_is_given(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 128 * 130).reshape(128, 130).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    turned = Image.new("RGB", (140, 128), (9, 9, 9))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    clear = Image.new("RGBA", (128, 128), (255, 0, 255, 255))
    clear.putpixel((3, 4), (255, 0, 255, 254))
    clear.save(tmp_path / "clear.png")
    Image.new("RGBA", (129, 128), (255, 0, 255, 255)).save(tmp_path / "opaque.png")
    with tarfile.open(tmp_path / "more.tar.gz", "w:gz") as pack:
        pack.add(tmp_path / "turned.jpg", "turned.jpg")
    loaded = load_photographs([tmp_path], 128)
    assert [x.shape for x in loaded.images] == [(128, 130, 3), (140, 128, 3), (128, 129, 3), (140, 128, 3)]
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
    assert not np.array_equal(sampler.at(12)[0], crops)
    assert not np.array_equal(CropSampler(images, 128, 4, 64, seed=8).at(11)[0], crops)


def test_crops_are_from_everywhere_mirrored_or_not_and_at_most_halved() -> None:
    """Each pixel says where it was: row, column, picture."""
    images = [np.stack([*np.mgrid[:height, :60], np.full((height, 60), k)], 2).astype(np.uint8)
              for k, height in enumerate((20, 50))]  # fmt: skip
    crops, levels = CropSampler(images, 16, 4000, 3, seed=0).at(0)
    assert set(levels) == {0, 1, 2}
    rows, columns, picture = np.moveaxis(crops.astype(int), 3, 0)
    heights, widths = rows[:, -1, 0] - rows[:, 0, 0], columns[:, 0, -1] - columns[:, 0, 0]
    as_they_are = heights == 15
    assert 0.4 < as_they_are.mean() < 0.7
    assert 0.4 < (widths > 0).mean() < 0.6
    for k, height in enumerate((20, 50)):
        found = as_they_are & (picture[:, 0, 0] == k)
        assert (rows[found].min(), rows[found].max()) == (0, height - 1)
        assert (columns[found].min(), columns[found].max()) == (0, 59)
    assert heights[picture[:, 0, 0] == 1].max() in (30, 31)
