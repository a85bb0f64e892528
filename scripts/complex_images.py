"""Comparison of training images with real complex images, and of priors with BM3D in denoising real ones.

python scripts/complex_images.py spectrum SCAN [SCAN ...] --images STACKS --figure quadrature.png
python scripts/complex_images.py denoise SCAN [SCAN ...] --prior brain --prior brain-complex

Scans are fully sampled; each gives its middle slice, combined with coil maps from full k-space, its 99th percentile at
1. The quadrature part of an image x is the imaginary part of x exp(-i p), p the phase of x after a Gaussian window over
k-space whose full width at half maximum is 1/8 of the matrix: the part that a smooth phase does not explain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from mri_score.data.coils import coil_maps
from mri_score.data.scale import percentile
from mri_score.models.precision import find_precision
from mri_score.numerics.fourier import fft, ifft
from mri_score.numerics.noise import generators, noise_like
from mri_score.priors.store import load_prior
from mri_score.readers import open_scan
from mri_score.sources.magnitude_images import ImageStacks

WIDTH = 1 / 8
"""Full width at half maximum of the window that leaves the smooth phase, as a part of the matrix."""
SIGMAS = (0.03, 0.1, 0.3)
RINGS = 32
"""Rings of k-space, from its centre to the middle of its edges."""


def combined(path: Path) -> Tensor:
    """The middle slice of a full scan, complex (H, W)."""
    scan = open_scan(path)
    kspace = scan.kspace(scan.slices // 2)[None]
    maps, _, _ = coil_maps(kspace)
    image = (maps.conj() * ifft(kspace)).sum(1)[0]
    return image / percentile(image)


def head(image: Tensor) -> np.ndarray:
    """(H, W) bool: the largest region brighter than .15, holes filled."""
    bright = ndimage.binary_fill_holes(ndimage.binary_opening(image.abs().numpy() > 0.15))
    labels, count = ndimage.label(bright)
    sizes = ndimage.sum(bright, labels, range(1, count + 1))
    return labels == 1 + int(np.argmax(sizes)) if count else bright


def quadrature(image: Tensor) -> Tensor:
    """(H, W) real: the part that a smooth phase does not explain."""
    deviation = WIDTH / (2 * math.sqrt(2 * math.log(2)))
    rows, cols = (torch.arange(size) / size - (size // 2) / size for size in image.shape)
    window = torch.exp(-(rows[:, None] ** 2 + cols**2) / (2 * deviation**2))
    return (image * torch.sgn(ifft(window * fft(image))).conj()).imag


def spectrum_of(image: Tensor) -> np.ndarray:
    """Root mean square of the quadrature part's k-space in rings, (RINGS,); a corner lies beyond the last."""
    energy = fft(quadrature(image).to(torch.complex64)).abs().square().numpy()
    rows, cols = (np.arange(size) / size - (size // 2) / size for size in image.shape)
    ring = (2 * RINGS * np.hypot(rows[:, None], cols)).astype(int)
    inside = ring < RINGS
    counts = np.bincount(ring[inside], minlength=RINGS)
    return np.sqrt(np.bincount(ring[inside], energy[inside], minlength=RINGS) / np.maximum(counts, 1))


def in_head(image: Tensor) -> float:
    """Root mean square of the quadrature part inside the head."""
    return float(quadrature(image)[torch.from_numpy(head(image))].square().mean().sqrt())


@click.group()
def main() -> None:
    """Compare real complex images with training images."""
    torch.set_num_threads(1)


@main.command()
@click.argument("scans", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--images", multiple=True, required=True, type=click.Path(exists=True, path_type=Path), help="Stacks.")
@click.option("--matrix", type=int, nargs=2, default=(96, 288), show_default=True)
@click.option("--acquisition/--no-acquisition", default=True, show_default=True, help="What a scanner adds.")
@click.option("--count", type=int, default=64, show_default=True, help="Training images.")
@click.option("--figure", type=click.Path(path_type=Path), help="Where to draw the spectra.")
def spectrum(
    scans: tuple[Path, ...],
    images: tuple[Path, ...],
    matrix: tuple[int, int],
    acquisition: bool,
    count: int,
    figure: Path | None,
) -> None:
    """Quadrature parts of SCANS beside those of the training pipeline."""
    source = ImageStacks(images, matrix=matrix, acquisition=acquisition)
    trained = [source.sample(generators(0, "spectrum", number)[0]).image for number in range(count)]
    singles = [image[0] / percentile(image[0]) for image in trained if image is not None]
    real = {path.stem: combined(path) for path in scans}
    quantiles = np.quantile([in_head(image) for image in singles], (0.1, 0.5, 0.9))
    click.echo("| image | quadrature part inside the head, rms |\n|---|---|")
    for name, image in real.items():
        click.echo(f"| {name} | {in_head(image):.3f} |")
    click.echo(f"| training images: 10, 50, 90 % | {', '.join(f'{value:.3f}' for value in quantiles)} |")
    if figure is not None:
        _draw(figure, {name: spectrum_of(image) for name, image in real.items()}, [spectrum_of(one) for one in singles])


def _draw(path: Path, real: dict[str, np.ndarray], trained: Sequence[np.ndarray]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    place = (np.arange(RINGS) + 0.5) / RINGS
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    low, middle, high = np.quantile(trained, (0.1, 0.5, 0.9), axis=0)
    axes.fill_between(place, low, high, color="0.85", label="training images, 10 to 90 %")
    axes.plot(place, middle, color="0.4", label="training images, median")
    for name, values in real.items():
        axes.plot(place, values, label=name)
    axes.set(yscale="log", xlabel="distance from the centre of k-space (1: middle of its edge)")
    axes.set(ylabel="rms of the quadrature part")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


@main.command()
@click.argument("scans", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--prior", "priors", multiple=True, required=True, help="A bundled prior, a run folder or a file.")
@click.option("--precision", default="float32", show_default=True)
def denoise(scans: tuple[Path, ...], priors: tuple[str, ...], precision: str) -> None:
    """Gain over BM3D (dB) inside the head of SCANS, real and imaginary part separately; the reference images contain
    noise.
    """
    try:
        import bm3d
    except ImportError as error:
        raise click.ClickException("this needs BM3D: pip install 'mri-score[bm3d]'") from error
    models = {name: load_prior(name) for name in priors}
    for model in models.values():
        model.precision = find_precision(precision)
    click.echo("| scan | sigma | error of BM3D / sigma | " + " | ".join(f"{name}, gain (dB)" for name in priors) + " |")
    click.echo("|---" * (3 + len(priors)) + "|")
    for path in scans:
        image = combined(path)
        inside = torch.from_numpy(head(image))
        for sigma in SIGMAS:
            noisy = image + sigma * noise_like(image[None], generators(0, f"{path.stem}{sigma}"))[0]
            parts = [bm3d.bm3d(part.double().numpy(), sigma) for part in (noisy.real, noisy.imag)]
            rival = _error(torch.complex(*(torch.from_numpy(part).float() for part in parts)), image, inside)
            with torch.no_grad():
                ours = [_error(model.denoise(noisy[None], sigma)[0], image, inside) for model in models.values()]
            gains = " | ".join(f"{20 * math.log10(rival / error):+.2f}" for error in ours)
            click.echo(f"| {path.stem} | {sigma:g} | {rival / sigma:.3f} | {gains} |")


def _error(found: Tensor, image: Tensor, inside: Tensor) -> float:
    """Root mean square of the error's real components inside the head."""
    return float(((found - image)[inside].abs().square().mean() / 2).sqrt())


if __name__ == "__main__":
    main()
