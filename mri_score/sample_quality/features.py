"""Networks for features of images: the network of a prior, or a file of the user."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mri_score.data.pixel_values import PixelValues, pixel_values
from mri_score.errors import InputError
from mri_score.models.network import NetworkPrior
from mri_score.priors.store import DEFAULT, load_prior

SIGMA = 0.1
"""Noise level given to the project's own networks; at this level features describe structure, not noise."""
INCEPTION = 299
"""Width and height of the images that Inception takes."""


class Extractor(Protocol):
    """Prepared images -> features (B, D); the features of an image depend on no other image.

    Images are magnitudes (B, H, W), or RGB (B, 3, H, W) with pixels in [0, 1].
    """

    title: str
    """Name of the distance."""
    about: str
    """Description of the features."""

    def __call__(self, images: Tensor) -> Tensor: ...


class OwnFeatures:
    """The deepest activations of a prior's network, averaged over the image. Their distance is not an FID.

    The network gets the image without noise or phase, with the noise level SIGMA. Deepest are the activations of the
    lowest resolution, among these those with the most channels, and of several the last. The features are only
    sensitive to structures that the network was trained on. Colour images need a prior of colour images.
    """

    title = "Fréchet distance (own features)"

    def __init__(self, prior: NetworkPrior, name: str = DEFAULT) -> None:
        self.prior = prior
        self.about = f"deepest activations of the network of {name} at sigma {SIGMA:g}, averaged over the image"

    def __call__(self, images: Tensor) -> Tensor:
        with _deepest(self.prior.network) as found:
            try:
                if images.ndim == 4:
                    values = pixel_values(self.prior.about) or PixelValues()
                    self.prior.denoise(values.forward(images), SIGMA)
                else:
                    self.prior.denoise(images.to(torch.complex64), SIGMA)
            except RuntimeError as error:
                raise InputError(f"{self.about}: it fails on images {tuple(images.shape)}: {error}") from error
        return found[0].float().mean((-2, -1))


@contextmanager
def _deepest(network: nn.Module) -> Iterator[list[Tensor]]:
    """A list that contains the deepest activation after the network was called in this context."""
    found: list[Tensor] = []

    def keep(module: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and (not found or _depth(output) >= _depth(found[0])):
            found[:] = [output]

    handles = [module.register_forward_hook(keep) for module in network.modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _depth(activation: Tensor) -> tuple[int, int]:
    return -activation[0, 0].numel(), activation.shape[1]


class FileFeatures:
    """The output of a user's network for (B, 3, 299, 299) in [0, 1], averaged over any further axes.

    Magnitudes are clipped at 1, their 99th percentile, and copied to three channels; colour images are taken as they
    are. Both are resized by antialiased bilinear interpolation. If the file is the Inception network of Heusel et al.
    up to its 2048 pooled features, the distance is an FID; its weights are not included, and never downloaded.
    """

    def __init__(self, path: Path, network: Callable[[Tensor], Any]) -> None:
        self.path, self.network = path, network
        self.title = f"Fréchet distance (features of {path.name})"
        self.about = f"output of {path.name} for {INCEPTION} x {INCEPTION}, three channels; an FID if Inception's"

    def __call__(self, images: Tensor) -> Tensor:
        colours = images.float().clamp(0, 1)
        colours = colours if colours.ndim == 4 else colours[:, None].expand(-1, 3, -1, -1)
        try:
            output = self.network(interpolate(colours, size=(INCEPTION, INCEPTION), mode="bilinear", antialias=True))
        except Exception as error:  # an unknown network may raise any exception
            raise InputError(
                f"{self.path} fails on images (B, 3, {INCEPTION}, {INCEPTION}) in [0, 1]: {error}; wrap it so that it"
                " takes them"
            ) from error
        if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != len(images):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise InputError(f"{self.path} puts out {got} for {len(images)} images; features are one tensor (B, D)")
        return output.flatten(2).float().mean(2) if output.ndim > 2 else output.float()


def load_extractor(name: str = DEFAULT, device: torch.device | str = "cpu") -> Extractor:
    """Load an extractor of features.

    name: a prior's name, run folder or .safetensors file for `OwnFeatures`; a TorchScript file (.ts, .pt) or .onnx file
    for `FileFeatures`. A TorchScript file contains code, which is executed: do not load untrusted files. device: where
    the network computes.
    Errors: InputError for files that are missing or not readable, and for .onnx without onnxruntime.
    """
    path = Path(name)
    if path.is_dir() or path.suffix not in (".ts", ".pt", ".onnx"):
        return OwnFeatures(load_prior(name).to(device), name)
    if not path.is_file():
        raise InputError(f"--features {name} does not exist; give a TorchScript or ONNX file, or a prior such as brain")
    return FileFeatures(path, _onnx(path) if path.suffix == ".onnx" else _torchscript(path, device))


def _torchscript(path: Path, device: torch.device | str) -> Callable[[Tensor], Any]:
    try:
        return torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path} is not TorchScript ({error}); write it with torch.jit.save") from error


def _onnx(path: Path) -> Callable[[Tensor], Any]:
    if find_spec("onnxruntime") is None:
        raise InputError(f"{path} needs onnxruntime: pip install 'mri-score[onnx]', or give a TorchScript file (.ts)")
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common
        raise InputError(f"{path} cannot be read as ONNX: {error}") from error
    entry = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {entry: images.cpu().numpy()})[0])


@torch.no_grad()
def extract(
    extractor: Extractor, images: Sequence[Tensor] | Tensor, batch_size: int = 8, device: torch.device | str = "cpu"
) -> Tensor:
    """Features (N, D) on the CPU of N prepared images, (H, W) or (3, H, W).

    extractor: computes them, for batch_size images at a time on `device`.
    """
    starts = range(0, len(images), batch_size)
    batches = (torch.stack(list(images[start : start + batch_size])).to(device) for start in starts)
    return torch.cat([extractor(batch).cpu() for batch in batches])
