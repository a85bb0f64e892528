"""The option --trust of every command."""

from __future__ import annotations

import click

from mri_score.untrusted.process import trust


def _trust(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:
        context.with_resource(trust())


def with_trust_option(command: click.Command) -> click.Command:
    """The command with the option --trust."""
    if not any(one.opts == ["--trust"] for one in command.params):
        command.params.append(
            click.Option(
                ["--trust"], is_flag=True, expose_value=False, is_eager=True, callback=_trust,
                help="Read files without the separate process that limits memory and time: for files that you know.",
            )  # fmt: skip
        )
    return command
