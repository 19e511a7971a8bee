"""condic-export: a trained codec to a bundle of ONNX graphs."""

from __future__ import annotations

from pathlib import Path

import click

from condic.command_line import run_program
from condic.errors import InputError


@click.command(context_settings={"max_content_width": 100, "show_default": True})
@click.option("--model", type=click.Choice(["dcic-sgp"]), required=True, help="Codec.")
@click.option("--preset", type=click.Choice(["t", "s", "b", "l"]), default="s", help="Size of the model.")
@click.option(
    "--weights", type=click.Path(path_type=Path), help="Weights from condic-train; default: the shipped ones."
)
@click.option("--fp16", "half", is_flag=True, help="Float graphs in half precision with fused attention, for GPUs.")
@click.option("--out", type=click.Path(path_type=Path), required=True,
              help="Folder to write; a name that ends in .condic gives one file.")  # fmt: skip
def export(model: str, preset: str, weights: Path | None, half: bool, out: Path) -> None:
    """Exports a codec as one ONNX graph per role, verified against PyTorch, with its tables and manifest."""
    try:
        from condic.export.session import run_export
    except ModuleNotFoundError as error:
        raise InputError(f"this needs {error.name}: pip install 'condic[export,cpu]'") from error

    run_export(model, preset, weights, half, out)


def main() -> None:
    """Entry point of `condic-export`."""
    run_program("condic-export", export)
