"""Plant one fault at a time in a copy of the package, and see whether a test fails.

python scripts/mutation.py                   # all faults, one after the other: about an hour on a free core
python scripts/mutation.py --only volume.py  # those whose file or change contains this text
python scripts/mutation.py --list            # what there is, and whether each still fits the code

A fault is one changed line. It is killed if one of the tests named beside it fails, and survives if all pass. The tests
that killed a fault run once more without any fault: they must pass. docs/lab/mutation.md records what was found.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[1]
HEAVY = (
    "numpy", "torch", "h5py", "scipy.stats", "scipy.ndimage", "skimage.metrics", "matplotlib.pyplot", "sigpy", "click",
    "pydantic", "pytest", "jinja2", "PIL.Image", "yaml", "safetensors.torch", "tqdm",
)  # fmt: skip
"""Imported once: each trial is a fork of this process."""


class Fault(NamedTuple):
    """In a file of the package (`cli/` included) the only occurrence of `old` becomes `new`.

    tests: files of tests/ without `test_` and `.py`, each with an optional `:EXPRESSION` for pytest's -k.
    """

    file: str
    old: str
    new: str
    what: str
    tests: tuple[str, ...]


V, RESULT, OUTPUT = "pipeline/volume.py", "pipeline/result.py", "pipeline/output.py"
HELD, DENOISE, FACTS = "pipeline/held_out.py", "pipeline/denoise.py", "pipeline/facts.py"
RECON, FASTMRI, HEADER = "reconstruction.py", "readers/fastmri.py", "readers/ismrmrd_header.py"
MRD, COLLECT = "readers/ismrmrd.py", "streaming/collect.py"
RUN, SAMPLE, OPTIONS = "cli/run/reconstruct.py", "cli/run/sample.py", "cli/options.py"

FAULTS = (
    # pipeline
    Fault(V, "append(one.level * scale)", "append(one.level)", "noise not scaled", ("volume_units",)),
    Fault(
        V,
        "float(acquisition.noise_std) / _gain(",
        "float(acquisition.noise_std) * _gain(",
        "gain inverted",
        ("volume_units",),
    ),
    Fault(
        V,
        "classical.abs() * (scale * one.weight)",
        "classical.abs() * one.weight",
        "baseline not scaled",
        ("volume_units", "cli:metrics_csv or makes_everything"),
    ),
    Fault(V, "found.samples[:, place], scan)", "found.samples[:, 0], scan)", "draws of another slice", ("volumes",)),
    Fault(V, "_written(std, scan)", "_written(std * scale, scan)", "std scaled twice", ("volume_units", "conformal")),
    Fault(
        V,
        "mask=mask & ~held)",
        "mask=mask)",
        "left-out lines stay in the mask",
        ("volume_units",),
    ),
    Fault(
        V, "kspace=acquisition.kspace * ~held", "kspace=acquisition.kspace * held", "mask inverted", ("volume_units",)
    ),
    Fault(
        V,
        "found.image[place] / scan.scale[0], found",
        "found.image[place], found",
        "scale of the check",
        ("volume_units",),
    ),
    Fault(
        V,
        "coil_images if acquisition.whitening is None else whiten(coil_images, acquisition.whitening)",
        "coil_images",
        "truth not whitened",
        ("volume_units",),
    ),
    Fault(
        V,
        "coil_images.abs().square().sum(0).sqrt()",
        "coil_images.abs().sum(0)",
        "sum for root sum of squares",
        ("volume_units", "cli:metrics_csv"),
    ),
    Fault(
        V,
        "slices=[one.number for one in group]",
        "slices=list(range(len(group)))",
        "seed by place, not by slice",
        ("volumes", "cli:batch_size"),
    ),
    Fault(V, "*([] if caution is None else [caution])", "*[]", "note dropped: intervals do not fit", ("volume_units",)),
    Fault(
        V,
        "volume.notes = [*volume.notes, warning]",
        "volume.notes = [*volume.notes]",
        "note dropped: out of distribution",
        ("out_of_distribution",),
    ),
    Fault(
        V,
        "resize_image(image, scan.file.crop)",
        "resize_image(image, scan.file.crop[::-1])",
        "axes of the crop swapped",
        ("volume_units",),
    ),
    Fault(
        V, "options.batch_size // options.samples", "options.batch_size", "slices for walks in a batch", ("volumes",)
    ),
    Fault(
        RESULT,
        "self.image.abs() * torch.stack(self.weight)",
        "self.image.abs()",
        "RSS without its weight",
        ("volume_result",),
    ),
    Fault(
        RESULT,
        "[draws[0] for draws in self.samples]",
        "[draws.mean(0) for draws in self.samples]",
        "mean in place of one draw",
        ("volume_result",),
    ),
    Fault(
        RESULT,
        "torch.stack(self.stds) * torch.stack(self.weight)",
        "torch.stack(self.stds)",
        "std without its weight",
        ("volume_result",),
    ),
    Fault(
        RESULT,
        'half * torch.stack(self.weight) if target == "magnitude" else half',
        "half",
        "interval without its weight",
        ("volume_result",),
    ),
    Fault(
        RESULT,
        "volume_scores(truth, image, inside), volume_scores(truth, image), self",
        "volume_scores(truth, image), volume_scores(truth, image, inside), self",
        "foreground and whole image swapped",
        ("volume_result",),
    ),
    Fault(
        RESULT,
        "len(self.samples[0]) < 2",
        "len(self.samples[0]) < 3",
        "no calibration of two draws",
        ("volume_result",),
    ),
    Fault(
        OUTPUT,
        "np.array(volume.slices)",
        "np.arange(len(volume.slices))",
        "slice numbers lost",
        ("volume_result",),
    ),
    Fault(
        "pipeline/result_file.py",
        'return complete and file.attrs.get("identity") == str(identity)',
        "return complete",
        "a file of other settings counts as finished",
        ("volume_result",),
    ),
    Fault(
        OUTPUT,
        "max(volume.misfit_ratios)",
        "min(volume.misfit_ratios)",
        "best slice in place of the worst",
        ("volume_result",),
    ),
    Fault(
        "pipeline/derived.py",
        'if row["file"] != table_cell(result.name)]',
        "if False]",
        "rows of other files lost",
        ("volume_result",),
    ),
    Fault(
        OUTPUT,
        "if not METHODS[options.method].draws:",
        "if METHODS[options.method].draws:",
        "note about estimates inverted",
        ("volume_result",),
    ),
    Fault(
        OUTPUT,
        "torch.stack(volume.samples, 1)",
        "torch.stack(volume.samples, 0)",
        "axes of the draws swapped",
        ("volume_result",),
    ),
    Fault(HELD, "(1 + 1 / len(samples)) * predictions", "predictions", "variance of the mean forgotten", ("held_out",)),
    Fault(
        HELD, "unit = 2 * noise_std**2", "unit = noise_std**2", "noise of one component for that of two", ("held_out",)
    ),
    Fault(
        HELD,
        "*mask_seed(result_name(scan.file.path), scan.sampling.seed))",
        "0)",
        "seed ignored",
        ("held_out",),
    ),
    Fault(DENOISE, "/ (2 * probes)", "/ probes", "factor two of the variance", ("denoise:exact or posterior_too",)),
    Fault(
        DENOISE,
        "noise_std is None else noise_std / scale",
        "noise_std is None else noise_std",
        "given noise not scaled",
        ("denoise",),
    ),
    Fault(DENOISE, "level_ratio=level / given", "level_ratio=given / level", "ratio inverted", ("denoise",)),
    Fault(
        DENOISE,
        "(scale * part.cpu() for part in (noisy, image, std))",
        "scale * noisy.cpu(), scale * image.cpu(), std.cpu()",
        "std not scaled",
        ("denoise",),
    ),
    Fault(
        DENOISE,
        "if scan.acceleration > 1:",
        "if scan.acceleration > 4:",
        "undersampled scans denoised",
        ("denoise:undersampled",),
    ),
    Fault(
        FACTS,
        "(round(number / draws) for number in (work.calls, work.products))",
        "(round(number) for number in (work.calls, work.products))",
        "calls of one draw and of all mixed up",
        ("volume_units",),
    ),
    # reconstruction and methods
    Fault(RECON, "draws=[draw])[0]", "draws=[0])[0]", "all draws alike", ("reconstruction",)),
    Fault(
        RECON,
        "(numbers[index], draw) for",
        "(0, draw) for",
        "slices share random numbers",
        ("reconstruction", "volumes"),
    ),
    Fault(
        RECON,
        "variance.mean(-1).sqrt()",
        "variance.sum(-1).sqrt()",
        "std of the complex number",
        ("reconstruction",),
    ),
    Fault(
        RECON,
        "self.means * scale",
        "self.means",
        "means not scaled",
        ("reconstruction",),
    ),
    Fault(
        RECON, "min(SIGMA_END, noise_std / 2)", "min(SIGMA_END, noise_std)", "walks end too early", ("reconstruction",)
    ),
    Fault(
        RECON,
        "samples=self.samples[:count]",
        "samples=self.samples[-count:]",
        "last draws for the first",
        ("reconstruction:first_draws",),
    ),
    Fault(
        RECON,
        "like if options.warm_start is None else operator.cg_sense(kspace)",
        "like",
        "warm start from zero",
        ("reconstruction:warm",),
    ),
    Fault(
        RECON,
        "scan.mask if len(scan.mask) == 1 else scan.mask[items]",
        "scan.mask[:1]",
        "mask of the first slice for all",
        ("reconstruction:different_masks",),
    ),
    Fault("methods.py", '{"zeta": 0.85**2}', '{"zeta": 0.85}', "option of a method", ("plug_and_play",)),
    Fault(
        "methods.py",
        '"langevin": Method("annealed", "langevin", "geometric", 334, 3),\n    "langevin-norm',
        '"langevin": Method("annealed", "langevin", "geometric", 334, 1),\n    "langevin-norm',
        "calls a level",
        ("work",),
    ),
    Fault(
        "methods.py",
        '"renoise", "karras", 30, 1, False',
        '"renoise", "karras", 30, 1',
        "an estimate called draws",
        ("work:page_says_which",),
    ),
    # command line
    Fault("cli/exits.py", "else NOTHING_DONE", "else 0", "wrong exit code", ("cli:bad_options",)),
    Fault(OPTIONS, "failed.append(path.name)", "pass", "failed files not counted: exit code 0", ("cli:bad_file_in",)),
    Fault(OPTIONS, "[number::count]", "[number:count]", "wrong slice of the files", ("shards",)),
    Fault(
        OPTIONS,
        "return [count // 2]",
        "return [0]",
        "first slice for the middle one",
        ("shards:slices",),
    ),
    Fault(
        OPTIONS,
        "all(0 <= number < count for",
        "all(0 <= number <= count for",
        "off by one in slices",
        ("shards:slices",),
    ),
    Fault(
        "cli/run/finished.py",
        '"out", "again",',
        '"seed", "out", "again",',
        "another seed counts as finished",
        ("cli:seed_of_the_draws",),
    ),
    Fault(
        "cli/run/finished.py",
        "if given.again or not finished(",
        "if not finished(",
        "--again ignored",
        ("cli:folder_skips",),
    ),
    Fault(RUN, "seed=given.seed,", "seed=0,", "seed ignored", ("cli:seed_of_the_draws", "held_out:ranks")),
    Fault(
        RUN,
        "(1 if options.check_lines is None else 2)",
        "1",
        "walks of the check not counted",
        ("footprint:dry_run",),
    ),
    Fault("cli/run/denoise.py", '"std": std * weight', '"std": std', "std without its weight", ("denoise:command",)),
    Fault(
        "cli/run/denoise.py",
        "abs(worst - 1) < TOLERANCE",
        "abs(worst - 1) > TOLERANCE",
        "note inverted",
        ("denoise:noted",),
    ),
    Fault(
        SAMPLE,
        "noise_std=kind.noise(noise_std))\n    draws = white * kind.pixels(draws)",
        "noise_std=kind.noise(noise_std))\n    draws = kind.pixels(draws)",
        "samples not scaled",
        ("sample_cli:inpaint", "sample_cli"),
    ),
    Fault(SAMPLE, "_slice)).abs() > 0", "_slice)).abs() == 0", "mask inverted", ("sample_cli:inpaint", "sample_cli")),
    Fault(
        SAMPLE,
        "int(parts[0]), int(parts[-1])",
        "int(parts[-1]), int(parts[0])",
        "rows and columns swapped",
        ("sample_cli",),
    ),
    # readers
    Fault(
        "readers/sampling.py",
        "slice(*padding)",
        "slice(padding[0], padding[1] + 1)",
        "off by one in padding",
        ("fastmri", "masks", "scan"),
    ),
    Fault(
        FASTMRI,
        "wanted = self.recon[0]",
        "wanted = self.recon[1]",
        "rows and columns swapped",
        ("fastmri",),
    ),
    Fault(
        FASTMRI,
        "min(rows, self.image_shape[0]), min(cols, self.cols)",
        "min(cols, self.image_shape[0]), min(cols, self.cols)",
        "square crop",
        ("fastmri",),
    ),
    Fault(
        "readers/sampling.py",
        "_SliceSampling(stored & measured, box",
        "_SliceSampling(measured, box",
        "unsampled points kept",
        ("fastmri",),
    ),
    Fault(
        "readers/sampling.py",
        "len(columns) - int(columns[::-1].argmax())",
        "len(columns) - 1 - int(columns[::-1].argmax())",
        "off by one at the edge",
        ("fastmri",),
    ),
    Fault(
        "readers/sampling.py",
        "_SliceSampling(stored & measured,",
        "_SliceSampling(stored,",
        "zeros taken as samples",
        ("fastmri",),
    ),
    Fault(
        "readers/sampling.py",
        "if (points & ~stored).any():",
        "if False:",
        "note dropped",
        ("fastmri",),
    ),
    Fault(
        HEADER,
        "left = encoded_cols // 2 - center",
        "left = encoded_cols // 2 + center",
        "sign of the centre",
        ("fastmri",),
    ),
    Fault(
        HEADER,
        "return left, left + maximum + 1",
        "return left, left + maximum",
        "off by one in the header",
        ("fastmri",),
    ),
    Fault(
        "readers/arrays_parsing.py",
        "np.moveaxis(volume, 2, 0)",
        "volume.T",
        "rows and columns swapped",
        ("images",),
    ),
    Fault(
        "readers/maps.py",
        "maps.abs().square().sum(-3, keepdim=True)",
        "maps.abs().square().sum(-1, keepdim=True)",
        "wrong axis",
        ("maps",),
    ),
    Fault(
        "readers/maps.py",
        "status.st_size, status.st_mtime_ns, list(axes)",
        "list(axes)",
        "maps of a changed file reused",
        ("maps",),
    ),
    Fault("readers/hdf5.py", " or stored > path.stat().st_size", "", "forged size believed", ("fastmri",)),
    Fault(
        "readers/hdf5_parsing.py",
        "if item.external or item.is_virtual:",
        "if item.is_virtual:",
        "samples of another file",
        ("fastmri",),
    ),
    Fault("readers/__init__.py", "path.suffix.lower()", "path.suffix", "suffix in capitals", ("readers",)),
    Fault(MRD, "shift = size // 2 - limits.center", "shift = limits.center - size // 2", "centre", ("ismrmrd",)),
    Fault(MRD, "kept[:, ::-1] if has_flag", "kept if has_flag", "reversed readouts not reversed", ("ismrmrd:order",)),
    Fault(MRD, "total /= np.maximum(count, 1)[:, None]", "total /= 1", "averages are added", ("ismrmrd:averages",)),
    Fault(
        "readers/ismrmrd_readouts.py",
        "ratio / (share or 1.0)",
        "ratio * (share or 1.0)",
        "noise bandwidth inverted",
        ("ismrmrd:noise_scan",),
    ),
    # streaming
    Fault(
        "streaming/images.py",
        "slope = max(self.slope, largest / LARGEST)",
        "slope = self.slope",
        "pixels overflow in brighter images",
        ("streaming:pixels",),
    ),
    Fault(
        "streaming/wire.py",
        '"matrix_size": matrix[::-1]',
        '"matrix_size": matrix',
        "axes of the matrix swapped",
        ("streaming:session or pixels or header or zero_filled", "streaming"),
    ),
    Fault(COLLECT, "if place in self.done:", "if False:", "a late readout makes an image", ("streaming:complete",)),
    Fault(COLLECT, ">= self.last_average", ">= 0", "complete after the first average", ("streaming:complete",)),
    Fault(
        COLLECT,
        "self.size -= sum(one.nbytes for one in group.readouts)",
        "pass",
        "images that are done count as waiting",
        ("streaming:collector",),
    ),
    # writers
    Fault(
        "writers/base.py",
        "affine[:3, 2] = steps.mean(0)",
        "affine[:3, 2] = -steps.mean(0)",
        "slices stacked backwards",
        ("writers:ball", "writers"),
    ),
    Fault(
        "writers/nifti.py", "LPS_TO_RAS @ volume.affine()", "volume.affine()", "LPS written as RAS", ("writers:ball",)
    ),
    Fault("writers/cfl.py", 'order="F"', 'order="C"', "rows and columns of cfl files swapped", ("writers:frames",)),
    # files of others
    Fault("untrusted/messages.py", "total > most or ", "", "size of a result not checked", ("untrusted:one_message",)),
    Fault(
        "readers/raw_samples.py",
        " or identity_of(status) != tuple(expected)",
        "",
        "samples of another file of the same name",
        ("untrusted:another_file",),
    ),
    Fault(
        "readers/raw_samples.py",
        "if last - first + 1 == count else None",
        "",
        "samples that lie apart read as one run",
        ("untrusted:h5py",),
    ),
    # files for viewers
    Fault(
        "writers/dicom.py",
        "_decimals(*place.column_direction, *place.row_direction)",
        "_decimals(*place.row_direction, *place.column_direction)",
        "directions of rows and columns swapped",
        ("writers:dicom_has",),
    ),
    Fault(
        "writers/dicom.py",
        '"PixelSpacing": _decimals(down, across)',
        '"PixelSpacing": _decimals(across, down)',
        "pixel sizes swapped",
        ("writers:distance_of_rows",),
    ),
    Fault(
        "writers/dicom.py",
        "or not place.oriented else",
        "else",
        "frame of reference without orientation",
        ("writers:template or dicom_has or orientation",),
    ),
    Fault(
        "writers/ismrmrd.py",
        "sum(1 << (flag - 1) for",
        "sum(1 << flag for",
        "flags counted from 0",
        ("convert:through_every_format or libraries",),
    ),
    Fault(
        "pipeline/bids.py",
        'and name["ses"] not in visits',
        'and name["ses"] in visits',
        "the other sessions",
        ("bids:chosen",),
    ),
    # arrays and pixels
    Fault(
        "readers/array_scan.py",
        "values = values.sum(-1) / np.maximum(measured, 1)",
        "values = values.mean(-1)",
        "unsampled averages averaged too",
        ("array_scan:series or frame",),
    ),
    Fault(
        "readers/array_scan.py",
        "np.fft.ifftshift(self._stored(number), 1)",
        "np.fft.fftshift(self._stored(number), 1)",
        "shift of an odd readout",
        ("array_scan:partitions",),
    ),
    Fault(
        "readers/matrices_parsing.py",
        'values["real"] + 1j * values["imag"]',
        'values["real"] - 1j * values["imag"]',
        "conjugate of a MATLAB array",
        ("array_scan:axes_are or commands or acquisition",),
    ),
    Fault(
        "sources/plain_images.py",
        "(255 * x + torch.rand(x.shape, generator=random)) / 256",
        "(256 * x + torch.rand(x.shape, generator=random)) / 256",
        "white above 1 after dequantisation",
        ("plain_images:dequantised",),
    ),
    Fault(
        "generation.py",
        "*(factor * side for side in image.shape[-2:])",
        "*(factor * side for side in reversed(image.shape[-2:]))",
        "rows and columns of a larger image swapped",
        ("pixels", "sample_cli"),
    ),
    # numbers of priors
    Fault(
        "likelihood.py",
        "+ torch.as_tensor(scale, dtype=torch.float64).log2()",
        "- torch.as_tensor(scale, dtype=torch.float64).log2()",
        "sign of the unit",
        ("likelihood:bits",),
    ),
    Fault(
        "likelihood.py",
        "found + values.log_slope(x).to(found.device)",
        "found",
        "slope of the pixel map forgotten",
        ("likelihood:pixels or dequantised", "likelihood"),
    ),
    Fault(
        "sample_quality/frechet.py",
        "b.root.square().sum() - 2 * cross",
        "b.root.square().sum() - cross",
        "factor two of the cross term",
        ("frechet:closed_form or itself",),
    ),
    Fault(
        "sample_quality/frechet.py",
        "(features - mean) / (len(features) - 1) ** 0.5",
        "(features - mean) / len(features) ** 0.5",
        "covariance over n",
        ("frechet:sample_mean",),
    ),
    Fault(
        "numerics/orientation.py",
        "torch.rot90(item, -(turns % 4), (-2, -1))",
        "torch.rot90(item, turns % 4, (-2, -1))",
        "turned twice instead of back",
        ("orientation:back",),
    ),
    Fault(
        "numerics/orientation.py",
        "2 * int(4 * place)",
        "int(8 * place)",
        "a wide image turned by 90 degrees",
        ("orientation:back or orientations_of_the_group",),
    ),
    # studies and settings
    Fault(
        "pipeline/run_log.py",
        "first = ended[-RECENT - 1] if",
        "first = ended[-RECENT] if",
        "rate of one scan too many",
        ("study:rate",),
    ),
    Fault(
        "pipeline/run_log.py",
        "if moment >= before.time:",
        "if moment > 0:",
        "an older event decides",
        ("study:newest",),
    ),
    Fault(
        "pipeline/merge.py",
        "if any(first[column] != row[column] for column in FORMATS):",
        "if False:",
        "other scores of one volume joined",
        ("study:merge",),
    ),
    Fault(
        "doctor.py", "_number(found) < _number(least)", "found < least", "versions compared as text", ("doctor:below",)
    ),
    Fault(
        "settings/differences.py",
        "if one.get(name) != other.get(name)}",
        "if name not in other}",
        "changed settings not shown",
        ("settings:compared",),
    ),
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--only", default="", help="faults whose file, change or description contains this")
    arguments.add_argument("--list", action="store_true", help="name the faults, and whether each fits the code")
    given = arguments.parse_args()
    chosen = [fault for fault in FAULTS if any(given.only in part for part in (*fault[:4],))]
    if given.list:
        for fault in chosen:
            print(f"{'fits' if occurrences(fault) == 1 else 'STALE'}  {fault.file}: {fault.what}")
        return
    for name in HEAVY:
        importlib.import_module(name)
    killers: set[str] = set()
    print("| file | fault | change | outcome | by |\n|---|---|---|---|---|", flush=True)
    for fault in chosen:
        if occurrences(fault) != 1:
            print(row(fault, "stale", ""), flush=True)
            continue
        with copied(fault) as checkout:
            failed, seconds = tried(checkout, fault.tests)
        killers |= set(failed)
        outcome = "killed" if failed else "SURVIVED"
        print(row(fault, outcome, failed[0] if failed else ", ".join(fault.tests)), flush=True)
        print(f"{outcome} in {seconds:.0f} s", file=sys.stderr, flush=True)
    with copied(None) as checkout:
        failed, _ = tried(checkout, (), sorted(killers)) if killers else ([], 0.0)
    print(f"\nThe {len(killers)} tests that killed, without a fault: {', '.join(failed) or 'all pass'}.")


def occurrences(fault: Fault) -> int:
    """Of the text that a fault replaces: 1 where it fits the code."""
    return source(fault.file).read_text(encoding="utf-8").count(fault.old)


def source(file: str) -> Path:
    return CHECKOUT / file if file.startswith("cli/") else CHECKOUT / "mri_score" / file


def row(fault: Fault, outcome: str, by: str) -> str:
    change = " ".join(f"`{fault.old}` -> `{fault.new}`".replace("|", "\\|").split())
    return f"| `{fault.file}` | {fault.what} | {change} | {outcome} | {by.removeprefix('tests/')} |"


@contextmanager
def copied(fault: Fault | None) -> Iterator[Path]:
    """A copy of the checkout, laid out as an installed package, with one fault or none."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        checkout = Path(folder) / "checkout"
        hidden = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / "mri_score", checkout / "mri_score", ignore=hidden)
        for name in ("cli", "configs", "parameters"):
            shutil.copytree(CHECKOUT / name, checkout / "mri_score" / name, ignore=hidden)
        for name in ("tests", "scripts", "docs"):
            shutil.copytree(CHECKOUT / name, checkout / name, ignore=hidden)
        for name in ("setup.cfg", "README.md"):
            shutil.copy(CHECKOUT / name, checkout / name)
        if (data := CHECKOUT.parent / "shared").exists():
            (checkout.parent / "shared").symlink_to(data.resolve())
        if fault is not None:
            path = checkout / "mri_score" / fault.file
            path.write_text(path.read_text(encoding="utf-8").replace(fault.old, fault.new), encoding="utf-8")
        yield checkout


def tried(checkout: Path, tests: tuple[str, ...], names: list[str] | None = None) -> tuple[list[str], float]:
    """The tests that fail in a copy, up to the first of `tests`, or all of `names`; and the seconds that it took."""
    started = time.monotonic()
    record = checkout.parent / "failed"
    for test in tests or ("",):
        file, _, expression = test.partition(":")
        options = [f"tests/test_{file}.py", "-x", *(["-k", expression] if expression else [])] if test else names or []
        if child := os.fork():
            os.waitpid(child, 0)
        else:
            os._exit(_pytest(checkout, options, record))
        if record.exists() and test:
            break
    return record.read_text().splitlines() if record.exists() else [], time.monotonic() - started


def _pytest(checkout: Path, options: list[str], record: Path) -> int:
    """In a child: pytest in the copy; the names of failed tests, or why there was none, go into `record`."""
    import pytest

    class Recorder:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                with record.open("a") as file:
                    file.write(report.nodeid + "\n")

    os.chdir(checkout)
    os.environ["PYTHONPATH"] = str(checkout)
    sys.path[:0] = [str(checkout), str(checkout / "tests")]
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    code = int(pytest.main(["-q", "-p", "no:cacheprovider", *options], plugins=[Recorder()]))
    package = sys.modules.get("mri_score")
    if package is not None and not str(package.__file__).startswith(str(checkout)):
        record.write_text("the wrong copy of the package was tested\n")
    elif code not in (0, 1):
        with record.open("a") as file:
            file.write(f"pytest ended with code {code}\n")
    return 0


if __name__ == "__main__":
    main()
