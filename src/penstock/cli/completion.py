"""``penstock completion``: the shell completion script."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for SHELL; for bash: eval "$(penstock completion bash)"."""
    from penstock.cli import cli  # noqa: PLC0415 - the group itself imports this module lazily

    completion = get_completion_class(shell)
    assert completion is not None
    click.echo(completion(cli, {}, "penstock", "_PENSTOCK_COMPLETE").source())
