"""How every condic program ends: exit codes, and one line on standard error for what input caused."""

from __future__ import annotations

import sys

import click

from condic.errors import CondicError

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def run_program(name: str, command: click.Command) -> None:
    """Runs a click command as the program `name` and exits.

    0: done; 1: the program did its work and the answer is no; 2: bad input or usage, in one line; 130: Ctrl-C. A bug
    shows its traceback.
    """
    try:
        sys.exit(command.main(prog_name=name, standalone_mode=False) or 0)
    except CondicError as error:
        _fail(name, str(error), BAD_INPUT)
    except click.UsageError as error:
        program = error.ctx.command_path if error.ctx else name
        _fail(name, f"{error.format_message()} (see {program} --help)", BAD_INPUT)
    except click.ClickException as error:
        _fail(name, error.format_message(), BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        _fail(name, "interrupted; nothing was left half-written", INTERRUPTED)


def _fail(name: str, message: str, code: int) -> None:
    click.echo(f"{name}: {' '.join(message.split())}", err=True)
    sys.exit(code)
