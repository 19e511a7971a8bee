"""condic-train: trains a codec on photographs."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import click

from condic.command_line import INTERRUPTED, Number, run_program

_UNITS = {"s": 1, "m": 60, "h": 3600}


class Duration(click.ParamType):
    """A time such as 90s, 25m or 1.5h, in seconds."""

    name = "time"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds as a float."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", value)
        if not match:
            self.fail(f"{value!r} is not a time; write it like 90s, 25m or 1.5h", param, ctx)
        seconds = float(match[1]) * _UNITS[match[2]]
        if not seconds:
            self.fail("a run needs some time", param, ctx)
        return seconds


@click.command(context_settings={"max_content_width": 100, "show_default": True})
@click.option("--model", type=click.Choice(["dcic-sgp", "cic-sr"]), default="dcic-sgp", help="Codec to train.")
@click.option("--preset", type=click.Choice(["t", "s", "b", "l", "paper"]), default="s",
              help="Size of the model; cic-sr has t, s and paper.")  # fmt: skip
@click.option(
    "--stage",
    type=click.Choice(["low-resolution", "super-resolution", "conditional", "joint"]),
    default="joint",
    help="What of cic-sr to train; stages go in this order, each with --init from the one before.",
)
@click.option("--data", "data", type=click.Path(path_type=Path), multiple=True, required=True,
              help="Folder, tar file or image; may be repeated.")  # fmt: skip
@click.option("--loss", type=click.Choice(["mse", "ms-ssim"]), default="mse", help="Distortion of the loss.")
@click.option("--steps", type=click.IntRange(min=0), help="Length of the run in steps; 0 only calibrates --init.")
@click.option("--time-budget", "budget", type=Duration(), help="Length of the run in time: 90s, 25m, 1.5h.")
@click.option("--resume", type=click.Path(path_type=Path), help="Continue this checkpoint's run.")
@click.option("--init", type=click.Path(path_type=Path), help="Start from these weights with a fresh optimiser.")
@click.option("--integers", is_flag=True,
              help="Fine-tune only the entropy path of --init, in its integer form.")  # fmt: skip
@click.option("--batch", type=click.IntRange(min=1), default=4, help="Crops per step.")
@click.option(
    "--crop",
    type=click.IntRange(min=128),
    default=256,
    help="Side of a crop, a multiple of 128; with ms-ssim at least 256.",
)
@click.option("--learning-rate", type=Number(min=0, min_open=True), default=8e-4, help="Peak learning rate.")
@click.option("--evaluate", "validation", type=click.Path(path_type=Path), help="Folder of images to evaluate on.")
@click.option("--evaluate-every", type=click.IntRange(min=1), default=2000, help="Steps between evaluations.")
@click.option("--blind", type=click.Choice(["analysis", "synthesis", "condition"]), default=None,
              help="Ablation, not for export: zeros instead of the prior's features there or in cic-sr.")  # fmt: skip
@click.option("--prior-share", type=Number(min=0, max=1, min_open=True), default=None,
              help="Part of a crop's bits beyond which those of dcic-sgp's prior count threefold.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Seed of weights and batches.")
@click.option("--device", default="auto", help="cpu, cuda, cuda:N or auto.")
@click.option("--compile/--no-compile", "compile_model", default=True,
              help="Compile the networks on a GPU: minutes at first, faster steps after.")  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("out"), help="Folder for checkpoint, weights, log."
)
@click.option("--force", is_flag=True, help="Replace the run that is in --out.")
def train(
    data: tuple[Path, ...],
    resume: Path | None,
    init: Path | None,
    validation: Path | None,
    device: str,
    compile_model: bool,
    force: bool,
    **options: object,
) -> None:
    """Trains a codec on folders and tar files of photographs.

    Writes checkpoint.pt, MODEL-PRESET.safetensors (the averaged weights) and metrics.jsonl into --out every few
    minutes and at the end, also when stopped by Ctrl-C, SIGTERM or SIGHUP; exit code 130 then.
    """
    if options["steps"] is None and options["budget"] is None:
        raise click.UsageError("give the run a length: --steps N or --time-budget 25m")
    if resume and init:
        raise click.UsageError("--resume continues a run, --init starts one: give one of them")
    if options["integers"] and not (init or resume):
        raise click.UsageError("--integers fine-tunes calibrated weights: give them with --init")
    if options["model"] != "cic-sr" and options["stage"] != "joint":
        raise click.UsageError("--stage belongs to --model cic-sr")
    if options["model"] == "cic-sr" and options["integers"]:
        raise click.UsageError("--integers belongs to --model dcic-sgp: cic-sr has no integer form")
    if options["blind"] and (options["blind"] == "condition") != (options["model"] == "cic-sr"):
        raise click.UsageError(f"--blind {options['blind']} is not for --model {options['model']}")
    if options["prior_share"] and options["model"] != "dcic-sgp":
        raise click.UsageError(f"--prior-share is not for --model {options['model']}")
    least = 768 if options["stage"] == "low-resolution" else 256
    if options["loss"] == "ms-ssim" and options["crop"] < least:
        raise click.UsageError(
            "MS-SSIM needs more than 160 pixels a side, 4 times as many in the low-resolution stage: "
            f"give --crop {least} or more"
        )
    if options["crop"] % 128:
        raise click.UsageError(f"--crop {options['crop']}: must be a multiple of 128")
    from condic.training.session import run_session

    if not run_session(data, resume, init, validation, device, options, compile_model=compile_model, force=force):
        sys.exit(INTERRUPTED)


def main() -> None:
    """Entry point of `condic-train`."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    run_program("condic-train", train, extras="train")
