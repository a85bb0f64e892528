"""mri-score fid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from . import names
from .log import note, say
from .options import ANY_PATH, FOLDER, base_line, base_options, batch_size_option, device_options, steps_option


@dataclass(frozen=True, kw_only=True)
class FidOptions:
    """The options of the command, named and typed as by click."""

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
    statistics: Path | None
    method: str | None
    steps: int | None
    seed: int
    batch_size: int
    device: str
    threads: int | None
    out: Path


@click.command("fid")
@click.option(
    "--prior", type=names.PRIOR, metavar="PRIOR",
    help="Draw samples from this prior: a bundled one, a run folder or .safetensors file.",
)
@click.option("--run", type=FOLDER, help="Draw samples from each checkpoint of this run, with its averaged weights.")
@click.option(
    "--samples", type=ANY_PATH, metavar="FILE|FOLDER",
    help="Use the samples in this file of mri-score sample, or the pictures of a folder, as RGB.",
)  # fmt: skip
@click.option(
    "--against", type=ANY_PATH, multiple=True, required=True, metavar="IMAGES",
    help="Real images to compare with: a stack (.h5 or NIfTI), a folder of stacks, for colours also pictures, .npy and"
    " CIFAR; may be repeated. Or statistics of their features: an .npz file with mu and sigma.",
)  # fmt: skip
@click.option("--out", "-o", type=FOLDER, default=Path("quality"), show_default=True, help="Folder for the results.")
@click.option(
    "--neighbours", "training", type=ANY_PATH, multiple=True, metavar="IMAGES",
    help="Training images: search for copies of them among the samples. --against must then be held-out images.",
)  # fmt: skip
@click.option(
    "--features", default="brain", show_default=True, metavar="PRIOR|FILE",
    help="Network that computes the features: a prior, or a file of your own. TorchScript (.ts, .pt): code in the file"
    " is executed, so use only files that you trust. ONNX (.onnx): needs onnxruntime. A file of your own gets"
    " magnitudes clipped to [0, 1], in 3 equal channels, or RGB, of 299 x 299 pixels (antialiased bilinear).",
)  # fmt: skip
@click.option(
    "-n", "--count", type=click.IntRange(4), default=64, show_default=True, help="Number of samples of each prior."
)
@click.option(
    "--images", "most", type=click.IntRange(4), metavar="N",
    help="Use at most N real images, evenly spaced over all of them.  [default: all]",
)  # fmt: skip
@click.option(
    "--size", type=click.IntRange(8), metavar="N",
    help="Draw samples of N x N pixels and crop the real images to that.  [default: the size of the images]",
)  # fmt: skip
@click.option(
    "--statistics", type=ANY_PATH, metavar="FILE.npz", help="Write mean and covariance of the features of --against."
)
@click.option("--method", "--sampler", type=names.SAMPLER, metavar="NAME", help="Sampler, as for mri-score sample.")
@steps_option
@base_options
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed, the same for all checkpoints.")
@batch_size_option
@device_options
def command(**options: Any) -> None:
    """Evaluate samples: Fréchet distance to real images, and a search for copies of training images.

    Give one of --prior, --run and --samples. By default the features come from the bundled prior; this Fréchet distance
    is not an FID and must not be compared with one. For an FID, give --features an Inception network with its 2048
    pooled features (not included). Both distances are biased upwards for few samples, so the table also has the
    distance extrapolated to infinitely many samples, with its standard error. Compare only distances with the same
    features, number of samples and real images.

    With --neighbours a table and a figure show the training image nearest to each sample. Distances are in units of the
    median distance of a held-out image: ratios near 1 or above are evidence against memorisation.

    \b
    Examples:
      mri-score fid --prior brain --against held_out.h5
      mri-score fid --run runs/brain --against held_out.h5 -n 32 --size 128
      mri-score fid --samples samples.h5 --against held_out.h5 --neighbours training.h5
      mri-score fid --prior brain --against held_out.h5 --features inception.ts -n 5000
      mri-score fid --prior runs/cifar10_ncsnpp --against cifar10.npz --features inception.ts -n 50000
    """
    import torch

    from mri_score.errors import InputError
    from mri_score.reconstruction import find_device
    from mri_score.sample_quality import frechet
    from mri_score.sample_quality.features import extract, load_extractor
    from mri_score.sample_quality.images import prepare, read_statistics, write_statistics

    given = FidOptions(**options)
    sources = [f"--{name}" for name in ("prior", "run", "samples") if options[name] is not None]
    if len(sources) != 1:
        raise InputError(f"give exactly one of --prior, --run and --samples; got {' and '.join(sources) or 'none'}")
    if given.threads:
        torch.set_num_threads(given.threads)
    device, size = find_device(given.device), given.size
    extractor = load_extractor(given.features, device)
    known = [path for path in given.against if path.suffix == ".npz"]
    real: Any = None
    reference: Any
    if known:
        _check_statistics(given)
        reference, shape = read_statistics(known[0]), _shape_of_samples(given)
        say(f"features   {extractor.about}\nreference  mean and covariance of {known[0]}")
    else:
        real = _real(given.against, _colour(given), (size, size) if size else None, given.most)
        reference, shape = extract(extractor, real, given.batch_size, device), real.shape
        say(f"features   {extractor.about}\nreference  {len(real)} images of {' x '.join(map(str, shape))}")
        if given.statistics:
            write_statistics(given.statistics, reference)
            say(given.statistics)

    distances: dict[str, frechet.Distance] = {}
    for name, samples in _samples(given, shape):
        images = torch.stack([prepare(sample, shape) for sample in samples])
        distance = frechet.measure(extract(extractor, images, given.batch_size, device), reference)
        distances[name] = distance
        say(
            f"{name:<10} {extractor.title} {distance.value:.4g}, extrapolated {distance.extrapolated:.4g} +/-"
            f" {distance.std_error:.2g}"
        )
    if distance.caution:
        note(distance.caution)
    frechet.write_table(given.out / "frechet.csv", distances)
    say(given.out / "frechet.csv")
    if given.run is not None:
        steps = {int(name.removeprefix("step ")): one for name, one in distances.items()}
        frechet.write_plot(given.out / "frechet.png", steps, extractor.title)
        say(f"best       {frechet.best(distances)}", bold=True)
        say(given.out / "frechet.png")
    if given.training:
        _neighbours(given, real, images)


def _real(paths: Any, colour: bool, shape: Any = None, most: int | None = None) -> Any:
    """The images of files: RGB in [0, 1], or magnitudes whose 99th percentile is 1."""
    from mri_score.sample_quality.images import ColourImages, RealImages

    return (ColourImages if colour else RealImages)(paths, shape, most)


def _colour(given: FidOptions) -> bool:
    """Whether the samples have three channels."""
    from mri_score.priors.store import find_prior, image_channels, read_record
    from mri_score.sample_quality.images import read_samples

    if given.samples is not None:
        return read_samples(given.samples).ndim == 4
    return image_channels(read_record(find_prior(given.run or given.prior or ""))["network"]) == 3


def _check_statistics(given: FidOptions) -> None:
    """Refuse what needs real images where only statistics of their features are given."""
    from mri_score.errors import InputError

    if len(given.against) > 1:
        raise InputError("--against FILE.npz holds the statistics of all real images; give it alone")
    if given.training or given.statistics or given.most:
        raise InputError("--neighbours, --statistics and --images need real images; --against FILE.npz has none")


def _shape_of_samples(given: FidOptions) -> tuple[int, ...]:
    """Rows and columns of the samples: of their file, of --size, or of the prior's training images."""
    from mri_score.errors import InputError
    from mri_score.priors.store import find_prior, read_record
    from mri_score.sample_quality.images import read_samples

    if given.samples is not None:
        return tuple(read_samples(given.samples).shape[-2:])
    about = read_record(find_prior(given.run or given.prior or "")).get("about") or {}
    size = (about.get("pixels") or {}).get("size") if given.size is None else (given.size, given.size)
    if size is None:
        raise InputError("--against FILE.npz does not tell the size of the images; give it with --size")
    return tuple(map(int, size))


def _samples(given: FidOptions, shape: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    """Yield name and samples (N, H, W) of the file, of the prior, or of each checkpoint."""
    from mri_score import generation
    from mri_score.progress import progress
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
            say(base_line(told, place))
        priors = iter([(str(place), bare)])
    for name, prior in priors:
        with progress(None, "call", name) as bar:
            samples = draw(place, prior, given.count, shape, walk, bar.update)
        yield name, samples


def _neighbours(given: FidOptions, real: Any, samples: Any) -> None:
    """Print and write the training images nearest to the samples; with --run, to those of the last checkpoint."""
    import torch

    from mri_score.sample_quality import neighbours

    training = _real(given.training, samples.ndim == 4, real.shape)
    found = neighbours.compare(samples, training, torch.stack(list(real)))
    ratios = found.ratios
    say(
        f"distance to the nearest of {len(training)} training images: held-out images {found.unit:.4g} (median),"
        " samples"
        f" {float(ratios.median()):.2f} times that (median), {float(ratios.min()):.2f} times (smallest);"
        f" {found.suspicious} of {len(samples)} samples are nearer than every held-out image"
    )
    neighbours.write_table(given.out / "neighbours.csv", found, training.name)
    neighbours.write_figure(given.out / "neighbours.png", samples, found, training.__getitem__)
    for name in ("neighbours.csv", "neighbours.png"):
        say(given.out / name)
