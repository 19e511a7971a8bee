"""condic-run doctor."""

from __future__ import annotations

import sys
from dataclasses import replace

import click

from condic.command_line import FAILED, TieredCommand
from condic.errors import BackendError
from condic.runtime.commands.setup import Setup, with_setup


@click.command(cls=TieredCommand)
@with_setup
def doctor(setup: Setup) -> None:
    """Lists the backends and whether they work here.

    Those that are installed load the model and must pass its known-answer tests. Exit code 1 if none works.
    """
    from condic.runtime.backends import backend_names

    rows = []
    for name in backend_names():
        try:
            codec = replace(setup, backend=name).open()
            graphs = codec.bundle.manifest.graphs
            for graph in graphs:
                codec.graphs.load(graph.role)
            passed = sum(graph.precision == "exact" for graph in graphs)
            detail = f"{codec.backend}; {passed} known-answer tests passed"
            rows.append({"backend": name, "works": True, "detail": detail})
        except BackendError as error:
            rows.append({"backend": name, "works": False, "detail": str(error)})
    lines = [f"{row['backend']:10} {'works' if row['works'] else 'no':6} {row['detail']}" for row in rows]
    setup.report({"backends": rows}, "\n".join(lines))
    if not any(row["works"] for row in rows):
        sys.exit(FAILED)
