"""condic-export: a trained codec to a bundle of ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from condic.command_line import run_program
from condic.errors import InputError

Role = Literal["image", "condition"]


@click.command(context_settings={"max_content_width": 100, "show_default": True})
@click.option("--model", type=click.Choice(["dcic-sgp", "cic-sr"]), required=True, help="Codec.")
@click.option("--preset", type=click.Choice(["t", "s", "b", "l", "paper"]), default="s", help="Size of the model.")
@click.option(
    "--weights", type=click.Path(path_type=Path), help="Weights from condic-train; default: the shipped ones."
)
@click.option("--lr-weights", type=click.Path(path_type=Path),
              help="cic-sr paper: published `stf8` checkpoint; then --weights is a `czigzag` one.")  # fmt: skip
@click.option("--sr-weights", type=click.Path(path_type=Path), help="cic-sr paper: official SwinIR x4 checkpoint.")
@click.option("--query", type=click.Choice(["image", "condition"]), default="image",
              help="With published checkpoints: what asks in cross-attention; as released: image.")  # fmt: skip
@click.option("--fp16", "half", is_flag=True, help="Float graphs in half precision with fused attention, for GPUs.")
@click.option("--out", type=click.Path(path_type=Path), required=True,
              help="Folder to write; a name that ends in .condic gives one file.")  # fmt: skip
def export(
    model: str,
    preset: str,
    weights: Path | None,
    lr_weights: Path | None,
    sr_weights: Path | None,
    query: Role,
    half: bool,
    out: Path,
) -> None:
    """Exports a codec as one ONNX graph per role, verified against PyTorch, with its tables and manifest."""
    published = None
    if lr_weights or sr_weights:
        if (model, preset) != ("cic-sr", "paper") or not (weights and lr_weights and sr_weights):
            raise click.UsageError(
                "published checkpoints: give --model cic-sr --preset paper, --weights, --lr-weights and --sr-weights"
            )
        published = (lr_weights, sr_weights)
    try:
        from condic.export.session import run_export
    except ModuleNotFoundError as error:
        raise InputError(f"this needs {error.name}: pip install 'condic[export,cpu]'") from error

    run_export(model, preset, weights, half, out, published, query)


def main() -> None:
    """Entry point of `condic-export`."""
    run_program("condic-export", export)
