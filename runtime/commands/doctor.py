"""condic-run doctor."""

from __future__ import annotations

import sys

import click

from condic.command_line import FAILED, TieredCommand, threads_option
from condic.errors import BackendError
from condic.runtime.commands.setup import Setup, json_option, model_option, report


@click.command(cls=TieredCommand)
@model_option
@threads_option
@json_option
def doctor(model: str | None, threads: int, as_json: bool) -> None:
    """Lists the backends and whether they work here.

    Those that are installed load the model and must pass its known-answer tests. Exit code 1 if none works.
    """
    from condic.runtime.backends import backend_names

    rows = []
    for name in backend_names():
        try:
            codec = Setup(model, name, threads, max_pixels=1, as_json=as_json).open()
            graphs = codec.bundle.manifest.graphs
            codec.load()
            passed = sum(graph.precision == "exact" for graph in graphs)
            tests = f"{passed} known-answer tests passed" if passed else f"{len(graphs)} graphs loaded"
            detail = f"{codec.backend}; {tests}"
            rows.append({"backend": name, "works": True, "detail": detail})
        except BackendError as error:
            rows.append({"backend": name, "works": False, "detail": str(error)})
    lines = [f"{row['backend']:10} {'works' if row['works'] else 'no':6} {row['detail']}" for row in rows]
    report({"backends": rows}, "\n".join(lines), as_json)
    if not any(row["works"] for row in rows):
        sys.exit(FAILED)
