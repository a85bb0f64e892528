"""mri-score priors."""

from __future__ import annotations

import click


@click.command("priors")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the bundled and the installed priors, or print the model card of the prior NAME.

    \b
    Example:
      mri-score priors brain
    """
    from mri_score.priors.installed import installed_priors
    from mri_score.priors.record import bundled_priors, find_prior, read_record

    if name is not None:
        path = find_prior(name)
        card = path.with_suffix(".md")
        click.echo(card.read_text(encoding="utf-8") if card.exists() else read_record(path)["about"])
        return
    for title, path in (bundled_priors() | installed_priors()).items():
        about = read_record(path)["about"]
        click.echo(f"{title:<16}{path.stat().st_size / 2**20:6.1f} MB  {about.get('summary', '')}")
