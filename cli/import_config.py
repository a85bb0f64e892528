"""mri-score import-config, and the configs of other projects that mri-score train meets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mri_score.errors import InputError

from .log import note, say
from .options import ANY_PATH

if TYPE_CHECKING:
    from mri_score.migration.translation import Translation


@click.command("import-config")
@click.argument("file", type=ANY_PATH)
@click.option("--out", "-o", type=ANY_PATH, help="The config to write.  [default: configs/<name of FILE>.yml]")
@click.option("--data", metavar="PATH", help="File or folder of the training data.")
@click.option(
    "--images", type=click.IntRange(1), metavar="N",
    help="Number of training images, for a FILE that counts epochs.  [default: of a public dataset, its own]",
)  # fmt: skip
@click.option("--loader", metavar="MODULE", help="Module of the class that data.dataloader names.  [default: loaders]")
@click.option("--again", is_flag=True, help="Overwrite an existing file.")
def command(
    file: Path, out: Path | None, data: str | None, images: int | None, loader: str | None, again: bool
) -> None:
    """Translate FILE, a training config of another project, and list what became of each of its keys.

    FILE is the YAML, JSON or Python module of utcsilab/score-diffusion-training, ermongroup/ncsnv2, ermongroup/ncsn,
    utcsilab/csgm-mri-langevin, yang-song/score_sde_pytorch or its rewrite. A module is parsed, never executed. The last
    lines are the commands that train, sample and reconstruct with it.

    \b
    Examples:
      mri-score import-config configs/bedroom.yml --data data/lsun/bedroom_train
      mri-score import-config config.json --images 14539 --data multicoil_train
    """
    from mri_score.files import write_text
    from mri_score.migration.published_configs import read_published_config
    from mri_score.migration.translation import translate

    out = Path("configs") / f"{file.stem}.yml" if out is None else out
    if out.exists() and not again:
        raise InputError(f"{out} exists already; choose another file with --out, or overwrite it with --again")
    found = translate(read_published_config(file), images=images, data=data, loader=loader)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, as_yaml(found, file))
    told(found, file)
    say(f"{out}")
    for line in found.commands:
        line = line.replace(f"--config {file.stem}.yml", f"--config {out}")
        say(f"next    {line.replace(f'runs/{file.stem}', f'runs/{out.stem}')}")


def as_yaml(found: Translation, file: Path) -> str:
    """The text of a translated config."""
    import yaml

    return f"# From {file.name} of {found.system}.\n{yaml.safe_dump(found.config, sort_keys=False)}"


def told(found: Translation, file: Path) -> None:
    """Print what became of each key."""
    say(f"{file}: a config of {found.system}")
    width = max((len(f"{key} {_short(value)}") for key, value, _ in found.became + found.lost), default=0)
    width = min(width, 60)
    for key, value, place in found.became:
        say(f"  {f'{key} {_short(value)}':<{width}}  {place}")
    for key, value, reason in found.lost:
        say(f"  {f'{key} {_short(value)}':<{width}}  no place: {reason}")
    for line in found.notes:
        note(line)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 30 else f"{text[:27]}..."


@contextmanager
def translated_config(name: str, data: str | None = None) -> Iterator[str]:
    """The name of a config, or of a translation of it that lasts for the block if it is of another project.

    name: as of --config. data: as of --data. Errors: InputError as in `translate`.
    """
    from mri_score.migration.published_configs import read_published_config
    from mri_score.migration.translation import is_foreign, translate

    path, published = Path(name), None
    if path.suffix in (".py", ".json", ".yml", ".yaml") and path.is_file():
        try:
            published = read_published_config(path)
        except InputError:
            if path.suffix in (".py", ".json"):
                raise  # a damaged YAML file is taken for one of ours, whose reader says what is wrong
    if published is None or not is_foreign(published.sections, path):
        yield name
        return
    found = translate(published, data=data)
    told(found, path)
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / f"{path.stem}.yml"
        other.write_text(as_yaml(found, path), encoding="utf-8")
        yield str(other)
