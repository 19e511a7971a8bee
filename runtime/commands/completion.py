"""condic-run completion."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Prints a script that makes a shell complete commands.

    \b
    bash: eval "$(condic-run completion bash)" in ~/.bashrc
    zsh:  eval "$(condic-run completion zsh)" in ~/.zshrc, after compinit
    fish: condic-run completion fish > ~/.config/fish/completions/condic-run.fish
    """
    from click.shell_completion import get_completion_class

    make = get_completion_class(shell)
    assert make is not None
    program = context.find_root()
    name = program.info_name or "condic-run"
    click.echo(make(program.command, {}, name, f"_{name.replace('-', '_')}_COMPLETE".upper()).source())
