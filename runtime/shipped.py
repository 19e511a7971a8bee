"""Where bundles are found: a path, or the name of one that came with the installation."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from condic.errors import BundleError

DEFAULT_MODEL = "dcic-sgp-s"
SUFFIX = ".condic"


def shipped_bundles() -> dict[str, Path]:
    """Bundles of this installation by name."""
    return {path.stem: path for path in sorted(shipped_folder().glob(f"*{SUFFIX}"))}


def shipped_folder() -> Path:
    """Where the installation keeps bundles and weights."""
    return Path(str(files("condic") / "bundles"))


def find_bundle(model: str) -> Path:
    """The path of a bundle given by path or by shipped name. Raises BundleError."""
    if Path(model).exists():
        return Path(model)
    shipped = shipped_bundles()
    if model not in shipped:
        raise BundleError(f"{model}: no such bundle, and not a shipped one ({', '.join(shipped) or 'none here'})")
    return shipped[model]
