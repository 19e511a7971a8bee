"""Bundles of the installation: which of them a file needs, and that a damaged one is nobody else's concern."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from condic.errors import BundleError
from condic.runtime import shipped
from condic.runtime.bundle import Bundle
from condic.runtime.shipped import model_of, shipped_name


@pytest.fixture
def installed(bundle_path: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two shipped bundles."""
    for path in (bundle_path, data_folder / "cic-sr-t.condic"):
        shutil.copy(path, tmp_path / path.name)
    monkeypatch.setattr(shipped, "shipped_folder", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "another zip", "gone"])
def test_a_damaged_bundle_harms_no_file_of_another(installed: Path, bundle: Bundle, damage: str) -> None:
    path = installed / "cic-sr-t.condic"
    data = path.read_bytes()
    path.unlink()
    if damage == "gone":
        path.symlink_to("nowhere")
    elif damage == "another zip":
        shutil.move(shutil.make_archive(str(installed / "other"), "zip", installed, "dcic-sgp-t.condic"), path)
    else:
        path.write_bytes({"cut": data[:1000], "empty": b"", "text": b"not a zip file\n"}[damage])
    assert model_of(bundle.id) == shipped_name(bundle.id) == "dcic-sgp-t"
    with pytest.raises(BundleError, match=r"none of those shipped \(cic-sr-t, which is damaged, dcic-sgp-t\)"):
        model_of(bytes(8))
