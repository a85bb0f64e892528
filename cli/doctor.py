"""mri-score doctor."""

from __future__ import annotations

import click

from .exits import SOME_FAILED

WIDTH = 18
COLOURS = {"ok": "green", "note": "yellow", "failed": "red"}


@click.command("doctor")
@click.option("--quick", is_flag=True, help="Leave out the self-test; this takes a second and does not load torch.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, to keep, or to send with a question.")
@click.pass_context
def command(context: click.Context, quick: bool, as_json: bool) -> None:
    """Check this installation: versions, processor, memory, GPU, BART, and a self-test of about ten seconds.

    The self-test compares a Fourier transform, an operator, a file, a network and a small reconstruction with known
    numbers. Exit code: 0 if nothing failed, 1 otherwise.

    \b
    Examples:
      mri-score doctor
      mri-score doctor --quick --json
    """
    import json
    from dataclasses import asdict
    from itertools import chain

    from mri_score import __version__, doctor
    from mri_score.errors import visible

    parts = [doctor.installation(), doctor.machine(), doctor.programs(), *([] if quick else [doctor.self_test()])]
    checks, group = [], ""
    for check in chain.from_iterable(parts):
        checks.append(check)
        if as_json:
            continue
        if check.group != group:
            click.secho(("\n" if group else "") + check.group, bold=True)
            group = check.group
        click.secho(f"  {check.outcome:<7}", fg=COLOURS[check.outcome], nl=False)
        click.echo(f"{check.name:<{WIDTH}} {visible(check.found)}")
        if check.advice:
            click.echo(f"{'':9}{'':<{WIDTH}} -> {check.advice}")
    failed = [check.name for check in checks if check.outcome == doctor.FAILED]
    if as_json:
        click.echo(json.dumps({"mri_score": __version__, "ok": not failed, "checks": [asdict(one) for one in checks]}))
    else:
        end = f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}" if failed else "Nothing failed."
        click.secho(f"\n{end}", bold=True)
    if failed:
        context.exit(SOME_FAILED)
