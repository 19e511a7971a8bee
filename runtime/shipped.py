"""Where bundles are found: a path, or the name of one that came with the installation."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from condic.errors import BundleError
from condic.files import exists, name_of

DEFAULT_MODEL = "dcic-sgp-s"
SUFFIX = ".condic"


def shipped_bundles() -> dict[str, Path]:
    """Bundles of this installation by name."""
    return {path.stem: path for path in sorted(shipped_folder().glob(f"*{SUFFIX}"), key=lambda p: p.stem)}


def shipped_folder() -> Path:
    """Where the installation keeps bundles and weights."""
    return Path(str(files("condic") / "bundles"))


def find_bundle(model: str) -> Path:
    """The path of a bundle given by shipped name or, where none is called so, by path. Raises BundleError."""
    shipped = shipped_bundles()
    if model in shipped:
        return shipped[model]
    if model and exists(Path(model)):
        return Path(model)
    raise BundleError(f"{name_of(model)}: no such bundle, and not a shipped one ({', '.join(shipped) or 'none here'})")


def model_of(bundle_id: bytes) -> str:
    """The name of the shipped model with the id that a file names; the default one if there is no choice.

    Raises BundleError if several are shipped and none is it.
    """
    shipped = shipped_bundles()
    if len(shipped) < 2:
        return DEFAULT_MODEL
    if name := shipped_name(bundle_id):
        return name
    found = ", ".join(name if _id_or_none(path) else f"{name}, which is damaged" for name, path in shipped.items())
    raise BundleError(
        f"the file was made with model {bundle_id.hex()}, none of those shipped ({found}); give its bundle as model "
        "(--model)"
    )


def shipped_name(bundle_id: bytes) -> str | None:
    """The name of the shipped model with an id, if there is one."""
    return next((name for name, path in shipped_bundles().items() if _id_or_none(path) == bundle_id), None)


def _id_or_none(path: Path) -> bytes | None:
    """None of a damaged bundle, which concerns nobody but those whose files need it."""
    try:
        return _id_of(path)
    except Exception:  # an archive can fail in any way
        return None


@cache
def _id_of(path: Path) -> bytes:
    import json
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return bytes.fromhex(json.loads(archive.read("manifest.json"))["bundle_id"])[:8]
