"""condic-export: a trained codec to a bundle of ONNX graphs, and a bundle to TensorRT engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click

from condic.command_line import run_program
from condic.errors import InputError, install_hint

Role = Literal["image", "condition"]

CODECS = ("dcic-sgp", "cic-sr")
_OF_ENGINES = ("profile", "shapes", "options", "require_fused", "optimization_level", "rebuild")
_OF_WEIGHTS = ("preset", "weights", "lr_weights", "sr_weights", "query", "half", "out")


@click.group(invoke_without_command=True, context_settings={"max_content_width": 100, "show_default": True})
@click.option("--model", metavar="CODEC|BUNDLE",
              help="dcic-sgp or cic-sr; with --engines also a bundle, or the name of a shipped one.")  # fmt: skip
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
@click.option("--out", type=click.Path(path_type=Path),
              help="Folder to write, or one file, NAME.condic. A bundle that is there is replaced.")  # fmt: skip
@click.option("--engines", is_flag=False, flag_value="", metavar="[FOLDER]",
              help="Build TensorRT engines, into the user's cache or a folder (see CONDIC_ENGINES).")  # fmt: skip
@click.option("--profile", default="1080p", metavar="NAMES",
              help="Sizes that engines take: 512, 1080p, 4k, or several with commas.")  # fmt: skip
@click.option("--shapes", metavar="MIN,OPT,MAX",
              help="Sizes instead of --profile: smallest, usual and largest HEIGHTxWIDTH.")  # fmt: skip
@click.option("--version-compatible", "options", multiple=True, is_flag=True, flag_value="version-compatible",
              help="Engines that later versions of the same major run, too.")  # fmt: skip
@click.option("--hardware-compatible", "options", multiple=True, is_flag=True, flag_value="hardware-compatible",
              help="Engines that all GPUs from Ampere on run.")  # fmt: skip
@click.option("--strip-weights", "options", multiple=True, is_flag=True, flag_value="weight-stripped",
              help="Small engines without weights, to be completed where they run.")  # fmt: skip
@click.option("--optimization-level", type=click.IntRange(0, 5),
              help="How long TensorRT looks for fast kernels: 0 to 5; its own level is 3.")  # fmt: skip
@click.option("--require-fused", is_flag=True, help="Fail if attention is not known to be one fused kernel.")
@click.option("--rebuild", is_flag=True, help="Build engines again that are there.")
@click.pass_context
def export(context: click.Context, /, model: str | None, out: Path | None, engines: str | None, **given: Any) -> None:
    """Exports a codec as one ONNX graph per role, verified against PyTorch, with its tables and manifest; and builds
    TensorRT engines of a codec or of a bundle.
    """
    if context.invoked_subcommand:
        return
    if model is None:
        raise click.UsageError("Missing option '--model'.")
    if engines is None:
        _refuse_given(context, _OF_ENGINES, "is for engines; give --engines")
        if out is None:
            raise click.UsageError("Missing option '--out' (or '--engines').")
    if model not in CODECS and engines is None:
        hint = "; for engines of a bundle give --engines" if Path(model).exists() else ""
        raise click.UsageError(f"--model {model}: no such codec; there are {' and '.join(CODECS)}{hint}")
    bundle = None if model in CODECS else _read(context, model)
    session = None if engines is None else _engine_session(context, engines, given)
    if bundle is None:
        bundle = _exported(model, out, **given)
    if session:
        session.build(bundle)


@export.command()
@click.argument("engine", type=click.Path(readable=False, path_type=Path))
def inspect(engine: Path) -> None:
    """Prints an engine's layers and precisions, and for each block of attention whether it is one fused kernel."""
    try:
        from condic.engines.session import run_inspect
    except ModuleNotFoundError as error:
        raise _missing(error, "tensorrt") from error

    run_inspect(engine)


def _exported(
    model: str,
    out: Path | None,
    *,
    preset: str,
    weights: Path | None,
    lr_weights: Path | None,
    sr_weights: Path | None,
    query: Role,
    half: bool,
    **_: Any,
) -> Any:
    """The bundle of a codec, written to `out` if there is one."""
    published = None
    if lr_weights or sr_weights:
        if (model, preset) != ("cic-sr", "paper") or not (weights and lr_weights and sr_weights):
            raise click.UsageError(
                "published checkpoints: give --model cic-sr --preset paper, --weights, --lr-weights and --sr-weights"
            )
        published = (lr_weights, sr_weights)
    elif query != "image":
        raise click.UsageError("--query is for published checkpoints; give --lr-weights and --sr-weights")
    try:
        from condic.export.session import run_export
    except ModuleNotFoundError as error:
        raise _missing(error, "export,cpu") from error

    return run_export(model, preset, weights, half, out, published, query)


def _read(context: click.Context, model: str) -> Any:
    """A bundle, given by path or shipped name; nothing of what makes one may be given with it."""
    from condic.runtime.bundle import read_bundle
    from condic.runtime.shipped import find_bundle

    _refuse_given(context, _OF_WEIGHTS, f"is of exporting, and {model} is exported already")
    return read_bundle(find_bundle(model))


def _engine_session(context: click.Context, folder: str, given: dict[str, Any]) -> Any:
    """What builds the engines, opened before anything takes time."""
    try:
        from condic.engines.build import Order
        from condic.engines.session import open_session
    except ModuleNotFoundError as error:
        raise _missing(error, "tensorrt") from error
    from condic.engines.profiles import named_profiles, profile_of_shapes
    from condic.runtime.engine_cache import engine_folder

    if shapes := given["shapes"]:
        _refuse_given(context, ("profile",), "and --shapes exclude each other")
        profiles = [profile_of_shapes(shapes)]
    else:
        profiles = named_profiles(given["profile"])
    where = Path(folder) if folder else engine_folder()
    return open_session(Order(
        where, profiles, tuple(given["options"]), require_fused=given["require_fused"],
        optimization_level=given["optimization_level"], rebuild=given["rebuild"],
    ))  # fmt: skip


def _refuse_given(context: click.Context, names: tuple[str, ...], why: str) -> None:
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if parameter.name in names and source is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} {why}")


def _missing(error: ModuleNotFoundError, extras: str) -> InputError:
    return InputError(f"this needs {error.name}: {install_hint(extras)}")


def main() -> None:
    """Entry point of `condic-export`."""
    run_program("condic-export", export)
