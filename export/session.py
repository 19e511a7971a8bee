"""One run of condic-export: weights, model, bundle and display put together."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from condic.errors import InputError
from condic.export.build import Row, build_bundle
from condic.export.codec_graphs import source_graphs
from condic.files import replace_whole
from condic.models.dcic_sgp import DcicSgp
from condic.models.weights import check_calibrated, load_weights, read_metadata
from condic.runtime.bundle import Bundle, bundle_files, write_bundle
from condic.runtime.shipped import shipped_folder


def run_export(model_name: str, preset: str, weights: Path | None, half: bool, out: Path) -> None:
    """Writes the bundle and prints its table. Raises CondicError for what the input made impossible."""
    console = Console(stderr=True)
    weights = weights or _shipped_weights(model_name, preset)
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder; make it first")
    model = DcicSgp(preset)
    load_weights(model, weights)
    model.eval()
    check_calibrated(model, weights)
    metadata = read_metadata(weights)
    if blind := metadata.get("blind"):
        raise InputError(f"{weights}: an ablation (blind {blind}), which the exported graphs would not be")
    rows: list[Row] = []
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("exporting", total=len(source_graphs(model)))

        def report(row: Row) -> None:
            rows.append(row)
            bar.update(task, advance=1, description=f"exported {row.role}")

        bundle = build_bundle(model, metadata, half=half, report=report)
    _write(bundle, out)
    console.print(_table(rows))
    console.print(f"{model_name}-{preset} {bundle.manifest.bundle_id[:16]} in {out}")


def _shipped_weights(model: str, preset: str) -> Path:
    path = shipped_folder() / f"{model}-{preset}.safetensors"
    if not path.is_file():
        raise InputError(f"no weights of {model} preset {preset} are shipped; give --weights FILE")
    return path


def _write(bundle: Bundle, out: Path) -> None:
    if out.suffix == ".condic":
        with replace_whole(out) as temporary:
            write_bundle(bundle, temporary)
        return
    out.mkdir(exist_ok=True)
    for name, data in bundle_files(bundle).items():
        with replace_whole(out / name) as temporary:
            temporary.write_bytes(data)


def _table(rows: list[Row]) -> Table:
    table = Table(title="verified against PyTorch on two sizes")
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
