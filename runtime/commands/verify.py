"""condic-run verify."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from condic.command_line import FAILED, TieredCommand
from condic.errors import LimitError, StreamError
from condic.files import named, read_source
from condic.runtime.commands.setup import Setup, coding_facts, source_argument, with_setup


@click.command(cls=TieredCommand)
@source_argument
@with_setup
def verify(setup: Setup, source: Path) -> None:
    """Decodes a file and checks every checksum.

    Prints the SHA-256 of the decoded latents, which is the same on all backends. Exit code 1 if the file is
    damaged or no condic file, 2 if it is over the limits.
    """
    from condic.runtime.bitstream import MAGIC, read_header
    from condic.runtime.timings import Timings

    data, timings = read_source(source, MAGIC), Timings()
    try:
        with named(source):
            header = read_header(data, setup.limits)
            model = setup.model_for(header)
        codec = setup.open(model)
        with named(source):
            start = time.perf_counter()
            digest = codec.decode(data, timings, setup.limits, latents=True).latents_sha256()
            seconds = time.perf_counter() - start
    except StreamError as error:
        if isinstance(error, LimitError):
            raise
        click.echo(f"condic-run: {error}", err=True)
        sys.exit(FAILED)
    facts = coding_facts(len(data), header, codec, timings, seconds) | {"latents_sha256": digest}
    setup.report(facts, f"{source}: intact\nlatents_sha256 {digest}")
