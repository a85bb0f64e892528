"""mri-score config."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("config")
def command() -> None:
    """Show, describe or compare training configs and the settings of runs.

    \b
    Examples:
      mri-score config show knee_384.yml --set training.steps=2000
      mri-score config schema --out config.schema.json
      mri-score config diff runs/knee_384 runs/knee_384_wide
    """


@command.command("show")
@click.argument("config")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="As in mri-score train; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a value: section, key, value, source.")
def show(config: str, changes: tuple[str, ...], as_json: bool) -> None:
    """Print CONFIG with all defaults, and where each value comes from.

    CONFIG is a YAML file, the name of a bundled config, or a run folder. The output is a config itself.
    """
    import json
    from dataclasses import asdict

    from mri_score.settings.merged import as_yaml, merged_settings

    settings = merged_settings(config, changes)
    if as_json:
        for one in settings:
            click.echo(json.dumps(asdict(one), default=str))
    else:
        click.echo(as_yaml(settings), nl=False)


@command.command("schema")
@click.option(
    "--out", "-o", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.  [default: print it]"
)
def schema(out: Path | None) -> None:
    """Print the JSON Schema of training configs, with which editors complete and check them.

    In VS Code with the YAML extension, and in other editors with yaml-language-server, this first line of a config is
    enough: # yaml-language-server: $schema=config.schema.json
    """
    import json

    from mri_score.files import write_text
    from mri_score.settings.schema import config_schema

    text = json.dumps(config_schema(), indent=2) + "\n"
    if out is None:
        click.echo(text, nl=False)
    else:
        write_text(out, text)


@command.command("diff")
@click.argument("one")
@click.argument("other")
def diff(one: str, other: str) -> None:
    """Print the settings in which ONE and OTHER differ.

    Each is a run folder of mri-score train (config, measured parameters, hash of the prior), a config, or a result file
    of mri-score reconstruct.
    """
    from mri_score.errors import visible
    from mri_score.settings.differences import differences, settings_of

    found = differences(settings_of(one), settings_of(other))
    for name, values in found.items():
        click.secho(visible(name), bold=True)
        for sign, value in zip("-+", values, strict=True):
            click.echo(f"  {sign} {'(not stated)' if value is None else visible(value)}")
    if not found:
        click.echo("No differences.")
