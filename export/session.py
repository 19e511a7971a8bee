"""One run of condic-export: weights, model, bundle and display put together."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from condic.errors import InputError
from condic.export import cic_sr_graphs, dcic_sgp_graphs
from condic.export.build import SIZES, Row, build_bundle
from condic.export.guard import SAFETY, guarded
from condic.export.source import SourceCodec
from condic.files import check_target, named_errors, replace_whole
from condic.models.checkpoints import (
    load_conditional,
    load_low_resolution,
    load_super_resolution,
    read_state,
)
from condic.models.cic_sr import CicSr
from condic.models.codecs import Codec, build_codec
from condic.models.dcic_sgp import DcicSgp
from condic.models.swin import Role
from condic.models.weights import check_calibrated, load_weights, read_metadata
from condic.runtime.bundle import MANIFEST, Bundle, bundle_files, write_bundle
from condic.runtime.shipped import shipped_folder


def run_export(
    model_name: str,
    preset: str,
    weights: Path | None,
    half: bool,
    out: Path | None,
    published: tuple[Path, Path] | None = None,
    query: Role = "image",
) -> Bundle:
    """Makes the bundle, writes it if there is a place, prints its table, and returns it.

    Raises CondicError for what the input made impossible.

    `published` are checkpoints for cic-sr's low-resolution codec and super-resolution; `weights` is one as well then.
    """
    console = Console(stderr=True, markup=False)
    weights = weights or _shipped_weights(model_name, preset)
    if out and out.suffix == ".condic":
        check_target(out)
    elif out and out.exists() and not out.is_dir():
        raise InputError(f"{out}: exists and is no folder; give one, or a name that ends in .condic")
    elif out and out.exists() and any(out.iterdir()) and not (out / MANIFEST).exists():
        raise InputError(f"{out}: a folder with other files; give one that is empty, or has a bundle to be replaced")
    elif out and not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder; make it first")
    if published:
        model, metadata = _read_published(console, preset, query, weights, *published)
    else:
        model, metadata = build_codec(model_name, preset), read_metadata(weights)
        load_weights(model, weights)
    model.eval()
    if model.ranges():
        check_calibrated(model, weights)
    if (stage := metadata.get("stage", "joint")) not in ("conditional", "joint"):
        raise InputError(f"{weights}: of --stage {stage}, after which more is to be trained; go on from it with --init")
    if blind := metadata.get("blind"):
        raise InputError(f"{weights}: an ablation (blind {blind}), which the exported graphs would not be")
    if out and out.suffix != ".condic":
        with named_errors(out):
            out.mkdir(exist_ok=True)
    source = describe(model)
    rows: list[Row] = []
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("exporting", total=len(source.graphs))

        def begin(what: str) -> None:
            bar.update(task, description=what)

        def report(row: Row) -> None:
            rows.append(row)
            bar.update(task, advance=1)

        bundle = build_bundle(source, metadata, half=half, begin=begin, report=report)
        if bundle.manifest.guarded:
            del model, source  # a large one leaves its room to the backends
            bundle = guarded(bundle, begin)
    if out:
        _write(bundle, out)
    console.print(_table(rows))
    for latent in bundle.manifest.latents:
        if latent.guard:
            console.print(f"guard of {latent.name}, {SAFETY} times the largest difference between backends:")
            for level, delta in zip(latent.guard.levels, latent.guard.deltas, strict=True):
                console.print(f"  level {level:2}: {delta.describe()}")
    console.print(f"{model_name}-{preset} {bundle.manifest.bundle_id[:16]}{f' in {out}' if out else ''}")
    return bundle


def describe(model: Codec) -> SourceCodec:
    """All that goes into the bundle of a model. Raises InputError."""
    return dcic_sgp_graphs.describe(model) if isinstance(model, DcicSgp) else cic_sr_graphs.describe(model)


def _read_published(
    console: Console, preset: str, query: Role, main: Path, low: Path, upscaling: Path
) -> tuple[Codec, dict[str, str]]:
    """A codec with published weights, and where they are from."""
    model = CicSr(preset, query)
    for path, load in (
        (main, load_conditional), (low, load_low_resolution), (upscaling, load_super_resolution)
    ):  # fmt: skip
        result = load(model, read_state(path), str(path))
        console.print(f"{path}: {len(result.read)} tensors read, {len(result.unread)} that no forward pass reads")
    names = ", ".join(path.name for path in (main, low, upscaling))
    return model, {"model": "cic-sr", "preset": preset, "source": names, "licence": "that of the checkpoints"}


def _shipped_weights(model: str, preset: str) -> Path:
    path = shipped_folder() / f"{model}-{preset}.safetensors"
    if not path.is_file():
        raise InputError(f"no weights of {model} preset {preset} are shipped; give --weights FILE")
    return path


def _write(bundle: Bundle, out: Path) -> None:
    if out.suffix == ".condic":
        write_bundle(bundle, out)
        return
    for name, data in reversed(bundle_files(bundle).items()):  # the manifest, which makes it a bundle, last
        with named_errors(out / name), replace_whole(out / name) as temporary:
            temporary.write_bytes(data)


def _table(rows: list[Row]) -> Table:
    table = Table(title=f"verified against PyTorch on {len(SIZES)} sizes")
    table.add_column("graph", no_wrap=True)
    table.add_column("precision")
    for name in ("parameters", "KiB", "max error", "largest\nsum / 2^24"):
        table.add_column(name, justify="right")
    for row in rows:
        error = "equal" if row.precision == "exact" else f"{row.error:.1e}"
        total = "" if row.largest_sum is None else f"{row.largest_sum:.2f}"
        table.add_row(row.role, row.precision, f"{row.parameters:,}", f"{row.bytes / 1024:,.0f}", error, total)
    table.add_section()
    table.add_row(
        "total", "", f"{sum(r.parameters for r in rows):,}", f"{sum(r.bytes for r in rows) / 1024:,.0f}", "", ""
    )
    return table
