"""condic-bench matrix."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from condic.benchmarks.options import images_argument, json_option, model_option, names_option, save
from condic.command_line import FAILED, threads_option
from condic.errors import BackendError, InputError
from condic.runtime.backends import backend_names


@click.command()
@images_argument
@names_option("--backends", "auto", "Backends, such as ort,openvino; auto: all that work here.")
@click.option("--quality", type=click.IntRange(0, 63), default=32, help="Level of the files.")
@model_option
@threads_option
@json_option
def matrix(
    paths: tuple[Path, ...], backends: tuple[str, ...], quality: int, model: str, threads: int, json_out: Path | None
) -> None:
    """Decodes files of every backend with every other and compares the hashes of their latents.

    Exit code 1 if a file does not decode to the integers that its own backend decodes.
    """
    from condic.benchmarks.display import progress, show_table
    from condic.benchmarks.images import find_images
    from condic.benchmarks.matrix import measure_matrix
    from condic.runtime.codec import load_codec

    images, codecs = find_images(paths), {}
    for name in backend_names() if backends == ("auto",) else backends:
        try:
            codecs[name] = load_codec(model, name, threads)
        except BackendError as error:
            if backends != ("auto",):
                raise
            click.echo(f"missing: {name}: {error}")
    if not codecs:
        raise InputError("no backend works here; condic-run doctor says why")
    with progress("decoding", len(codecs) ** 2) as begin:
        run = measure_matrix(codecs, images, quality, begin)
    rows = [
        (f"{c.encoder} to {c.decoder}", f"{c.equal} of {len(images)}", c.latents[:16], str(c.difference), c.error or "")
        for c in run.cells
    ]
    title = f"{run.model}, level {quality}, {len(images)} images: latents that are the encoder's own"
    show_table(title, ("files", "equal", "first hash", "grey levels apart", ""), rows)
    save(json_out, "matrix", run)
    if any(c.equal < len(images) for c in run.cells):
        sys.exit(FAILED)
