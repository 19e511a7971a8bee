"""condic-run: encode, decode, preview, info, verify, doctor, completion."""

from __future__ import annotations

import click

from condic.command_line import TieredGroup, run_program
from condic.runtime.commands.completion import completion
from condic.runtime.commands.decode import decode, preview
from condic.runtime.commands.doctor import doctor
from condic.runtime.commands.encode import encode
from condic.runtime.commands.info import info
from condic.runtime.commands.verify import verify
from condic.version import __version__

_CONTEXT = {"max_content_width": 100, "show_default": True, "help_option_names": ["-h", "--help"]}


@click.group(cls=TieredGroup, context_settings=_CONTEXT)
@click.version_option(__version__, message="condic %(version)s")
def cli() -> None:
    """Encodes and decodes images with learned codecs.

    A file name - is standard input or output; messages then go to standard error. A file that exists is kept unless
    --force is given, and what is written appears whole or not at all.

    Exit codes: 0 done; 1 some of several files failed, a file failed its verification, or no backend works; 2 bad input
    or usage; 130 interrupted.
    """


for command in (encode, decode, preview, info, verify, doctor, completion):
    cli.add_command(command)


def main() -> None:
    """Entry point of `condic-run`."""
    run_program("condic-run", cli)
