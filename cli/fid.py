"""mri-score fid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from .options import ANY_PATH, FOLDER, base_line, base_options


@dataclass(frozen=True, kw_only=True)
class FidOptions:
    """The options of the command, as click names and types them."""

    prior: str | None
    run: Path | None
    samples: Path | None
    against: tuple[Path, ...]
    training: tuple[Path, ...]
    features: str
    base: str | None
    border: float | None
    count: int
    most: int | None
    size: int | None
    method: str | None
    steps: int | None
    seed: int
    batch_size: int
    device: str
    threads: int | None
    out: Path


@click.command("fid")
@click.option("--prior", metavar="PRIOR", help="Samples of a prior: a bundled one, a run folder or .safetensors file.")
@click.option("--run", type=FOLDER, help="Samples of each checkpoint that a run keeps, by its averaged weights.")
@click.option("--samples", type=ANY_PATH, metavar="FILE", help="Samples that mri-score sample wrote.")
@click.option(
    "--against", type=ANY_PATH, multiple=True, required=True, metavar="IMAGES",
    help="Real images: a stack (.h5 or NIfTI) or a folder of them; may be given several times.",
)  # fmt: skip
@click.option(
    "--neighbours", "training", type=ANY_PATH, multiple=True, metavar="IMAGES",
    help="The training images: also look for copies of them among the samples; --against must then be held out.",
)  # fmt: skip
@click.option(
    "--features", default="brain", show_default=True, metavar="PRIOR|FILE",
    help="Whose features: a prior's, or a network's of your own, TorchScript (.ts, .pt: the file's code is run, so"
    " trust it) or ONNX (.onnx, needs onnxruntime), which gets magnitudes clipped to [0, 1], in 3 equal channels of"
    " 299 x 299 (antialiased bilinear).",
)  # fmt: skip
@base_options
@click.option("-n", "--count", type=click.IntRange(4), default=64, show_default=True, help="Samples of each prior.")
@click.option("--images", "most", type=click.IntRange(4), metavar="N", help="At most so many real images, spread out.")
@click.option(
    "--size", type=click.IntRange(8), metavar="N",
    help="Sample N x N pixels, and crop real images to that.  [default: the size of the images]",
)  # fmt: skip
@click.option("--method", "--sampler", metavar="NAME", help="As for mri-score sample.")
@click.option("--steps", type=click.IntRange(2), help="As for mri-score sample.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same for all checkpoints.")
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all cores]")
@click.option("--out", "-o", type=FOLDER, default=Path("quality"), show_default=True)
def command(**options: Any) -> None:
    """Judge samples: their Fréchet distance to real images, and whether they are copies of training images.

    By default the features are those of the project's own network, and the distance is no FID and compares with none.
    For an FID give --features an Inception network up to its 2048 pooled features; no weights of it can be fetched from
    here. Both kinds are biased upwards for few samples: the table also has the distance extrapolated to infinitely many
    and its standard error. Compare only distances of the same features, number of samples and real images.

    With --neighbours a table and a figure show the training images nearest to each sample, in units of the median
    distance of a held-out image: ratios near 1 or above speak against memorisation.

    \b
    Examples:
      mri-score fid --prior brain --against held_out.h5
      mri-score fid --run runs/brain --against held_out.h5 -n 32 --size 128
      mri-score fid --samples samples.h5 --against held_out.h5 --neighbours training.h5
      mri-score fid --prior brain --against held_out.h5 --features inception.ts -n 5000
    """
    import torch

    from mri_score.errors import InputError
    from mri_score.reconstruction import find_device
    from mri_score.sample_quality import frechet
    from mri_score.sample_quality.features import extract, load_extractor
    from mri_score.sample_quality.images import RealImages, prepare

    given = FidOptions(**options)
    sources = [f"--{name}" for name in ("prior", "run", "samples") if options[name] is not None]
    if len(sources) != 1:
        raise InputError(f"give one of --prior, --run and --samples; got {' and '.join(sources) or 'none'}")
    if given.threads:
        torch.set_num_threads(given.threads)
    device, size = find_device(given.device), given.size
    extractor = load_extractor(given.features, device)
    real = RealImages(given.against, (size, size) if size else None, given.most)
    reference = extract(extractor, real, given.batch_size, device)
    click.echo(f"features   {extractor.about}\nreference  {len(real)} images of {' x '.join(map(str, real.shape))}")

    distances: dict[str, frechet.Distance] = {}
    for name, samples in _samples(given, real.shape):
        images = torch.stack([prepare(sample, real.shape) for sample in samples])
        distance = frechet.measure(extract(extractor, images, given.batch_size, device), reference)
        distances[name] = distance
        click.echo(
            f"{name:<10} {extractor.title} {distance.value:.4g}, extrapolated {distance.extrapolated:.4g} +/-"
            f" {distance.std_error:.2g}"
        )
    if distance.caution:
        click.secho(f"note: {distance.caution}", fg="yellow", err=True)
    frechet.write_table(given.out / "frechet.csv", distances)
    click.echo(given.out / "frechet.csv")
    if given.run is not None:
        steps = {int(name.removeprefix("step ")): one for name, one in distances.items()}
        frechet.write_plot(given.out / "frechet.png", steps, extractor.title)
        click.secho(f"best       {frechet.best(distances)}", bold=True)
        click.echo(given.out / "frechet.png")
    if given.training:
        _neighbours(given, real, images)


def _samples(given: FidOptions, shape: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    """Name and samples (N, H, W) of the file, the prior or each checkpoint."""
    from mri_score import generation
    from mri_score.sample_quality.checkpoints import checkpoints, draw
    from mri_score.sample_quality.images import read_samples

    if given.samples is not None:
        yield given.samples.name, read_samples(given.samples)
        return
    walk = generation.GenerationOptions(
        given.method, given.steps, seed=given.seed, batch_size=given.batch_size, device=given.device
    )
    place: str | Path = given.run or given.prior or ""
    if given.run is not None:
        priors = checkpoints(given.run)
    else:
        bare, told = generation.bare_prior(place, given.base, given.border)
        if told:
            click.echo(base_line(told, place))
        priors = iter([(str(place), bare)])
    for name, prior in priors:
        with tqdm(desc=name, unit="call", leave=False, dynamic_ncols=True, smoothing=0.05, disable=None) as bar:
            samples = draw(place, prior, given.count, shape, walk, bar.update)
        yield name, samples


def _neighbours(given: FidOptions, real: Any, samples: Any) -> None:
    """Table, figure and summary of the (last) samples' nearest training images."""
    import torch

    from mri_score.sample_quality import neighbours
    from mri_score.sample_quality.images import RealImages

    training = RealImages(given.training, real.shape)
    found = neighbours.compare(samples, training, torch.stack(list(real)))
    ratios = found.ratios
    click.echo(
        f"nearest of {len(training)} training images: held-out images at {found.unit:.4g} (median); samples at"
        f" {float(ratios.median()):.2f} times that, the nearest at {float(ratios.min()):.2f}; {found.suspicious} of"
        f" {len(samples)} samples are nearer than every held-out image"
    )
    neighbours.write_table(given.out / "neighbours.csv", found, training.name)
    neighbours.write_figure(given.out / "neighbours.png", samples, found, training.__getitem__)
    for name in ("neighbours.csv", "neighbours.png"):
        click.echo(given.out / name)
