"""Convert published magnitude slices to HDF5 stacks for `data.name: images`, with a smaller matrix in k-space.

python scripts/prepare_images.py --zip t1ce_512.zip --nifti openms_native/ --out data/images

One stack for each matrix size, with labels `contrast`, `patient` and `source`. JPEG slices of 512 x 512
contain blocks of 8 x 8: their k-space is cropped to 288 x 288, which also removes the part that interpolation left
empty.
Slices of NIfTI volumes keep their matrix up to 320; longer sides are cropped in k-space.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import defaultdict
from pathlib import Path

import click
import h5py
import numpy as np
import torch
from PIL import Image

from mri_score.numerics.fourier import fft, ifft, resize_kspace
from mri_score.readers.image_stack import read_stack

JPEG_SIDE, JPEG_MATRIX, LARGEST = 512, 288, 320
NAME = re.compile(r"(?P<patient>patient\d+)_(?P<study>study\d+)_(?P<contrast>[A-Z0-9]+)")


def decimated(image: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """The image of the centre of k-space on a smaller matrix, as 16-bit magnitude with its maximum at 65,535."""
    x = torch.from_numpy(image.astype(np.float32)).to(torch.complex64)
    if (rows, cols) != tuple(x.shape):
        x = ifft(resize_kspace(fft(x), (rows, cols)))
    magnitude = x.abs().numpy()
    return np.round(magnitude * (65535 / max(float(magnitude.max()), 1e-6))).astype(np.uint16)


def from_zip(path: Path, stacks: dict) -> None:
    """Slices from a zip of JPEG files in folders by tumour; sizes other than 512 x 512 are left out and counted."""
    left = 0
    with zipfile.ZipFile(path) as archive:
        for name in sorted(one for one in archive.namelist() if one.endswith(".jpg")):
            image = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("L"))
            if image.shape != (JPEG_SIDE, JPEG_SIDE):
                left += 1
                continue
            tumour, number = name.removesuffix(".jpg").split("/")[-2:]
            labels = {"contrast": f"T1CE {tumour}", "patient": f"{tumour} {int(number) // 10}", "source": path.name}
            stacks[JPEG_MATRIX, JPEG_MATRIX].append((decimated(image, JPEG_MATRIX, JPEG_MATRIX), labels))
    click.echo(f"{path.name}: {left} slices of another size left out")


def from_nifti(folder: Path, stacks: dict) -> None:
    """Slices of NIfTI volumes named patientNN_studyN_CONTRAST."""
    for path in sorted(folder.glob("*.nii.gz")):
        found = NAME.match(path.name)
        if found is None:
            raise click.ClickException(f"{path.name} is not named patientNN_studyN_CONTRAST.nii.gz")
        volume, _ = read_stack(path)
        rows, cols = (side - side % 2 for side in volume.shape[1:])
        factor = min(1.0, LARGEST / max(rows, cols))
        rows, cols = 2 * round(rows * factor / 2), 2 * round(cols * factor / 2)
        labels = {"contrast": found["contrast"], "patient": found["patient"], "source": path.name}
        for image in volume[:, : volume.shape[1] // 2 * 2, : volume.shape[2] // 2 * 2]:
            if image.max() > 0.2 * volume.max():
                stacks[rows, cols].append((decimated(image, rows, cols), labels))


@click.command()
@click.option("--zip", "archive", type=click.Path(exists=True, path_type=Path), help="JPEG slices by folder.")
@click.option("--nifti", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of volumes.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the stacks.")
def main(archive: Path | None, nifti: Path | None, out: Path) -> None:
    """Write the stacks and print their numbers of slices."""
    stacks: dict[tuple[int, int], list] = defaultdict(list)
    if archive is not None:
        from_zip(archive, stacks)
    if nifti is not None:
        from_nifti(nifti, stacks)
    out.mkdir(parents=True, exist_ok=True)
    for (rows, cols), slices in sorted(stacks.items()):
        with h5py.File(out / f"heads_{rows}x{cols}.h5", "w") as file:
            file["image"] = np.stack([image for image, _ in slices])
            for label in ("contrast", "patient", "source"):
                file[label] = np.array([labels[label].encode() for _, labels in slices])
        click.echo(f"heads_{rows}x{cols}.h5: {len(slices)} slices")


if __name__ == "__main__":
    main()
