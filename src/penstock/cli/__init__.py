"""The ``penstock`` command.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the server could not be reached, 130 interrupted.
"""

from __future__ import annotations

from importlib import import_module

import click

from penstock._version import __version__

COMMANDS = {
    "bench": "penstock.cli.bench",
    "cache": "penstock.cli.cache",
    "completion": "penstock.cli.completion",
    "config": "penstock.cli.config",
    "demo": "penstock.cli.demo",
    "top": "penstock.cli.top",
    "export": "penstock.cli.export",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called: ``penstock --help`` starts at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name]).command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="penstock")
def cli() -> None:
    """A performance layer for programs that talk over WebSockets."""


def main() -> None:
    """Run the command; an interruption ends with 130 as shells expect."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except (click.Abort, KeyboardInterrupt):
        raise SystemExit(130) from None
    if isinstance(code, int):  # what `Context.exit` was given
        raise SystemExit(code)
