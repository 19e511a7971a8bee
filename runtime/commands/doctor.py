"""condic-run doctor."""

from __future__ import annotations

import sys
from contextlib import closing

import click

from condic.command_line import FAILED, TieredCommand, interruptions_held, threads_option
from condic.errors import BackendError
from condic.runtime.commands.setup import json_option, model_option, report
from condic.runtime.shipped import DEFAULT_MODEL


@click.command(cls=TieredCommand)
@model_option
@threads_option
@json_option
def doctor(model: str | None, threads: int, as_json: bool) -> None:
    """Lists the backends and whether they work here.

    Those that are installed load the model and must pass its known-answer tests. Exit code 1 if none works.
    """
    with interruptions_held():
        from condic.runtime.backends import backend_names
        from condic.runtime.codec import load_codec

    rows = []
    for name in backend_names():
        try:
            with closing(load_codec(model or DEFAULT_MODEL, name, threads)) as codec:
                codec.load()
                graphs, backend = codec.bundle.manifest.graphs, codec.backend
            passed = sum(graph.precision == "exact" for graph in graphs)
            tests = f"{passed} known-answer tests passed" if passed else f"{len(graphs)} graphs loaded"
            rows.append({"backend": name, "works": True, "detail": f"{backend}; {tests}"})
        except BackendError as error:
            rows.append({"backend": name, "works": False, "detail": str(error)})
    lines = [f"{row['backend']:10} {'works' if row['works'] else 'no':6} {row['detail']}" for row in rows]
    report({"backends": rows}, "\n".join(lines), as_json)
    if not any(row["works"] for row in rows):
        sys.exit(FAILED)
