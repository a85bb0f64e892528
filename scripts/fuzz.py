"""Alters files of every kind that mri-score reads, and reports what does not end as a result or one error message.

    python scripts/fuzz.py --cases 2000            # this many altered files, kinds by turns
    python scripts/fuzz.py --seconds 3600          # for an hour
    python scripts/fuzz.py --kind scan --only 1234 # one case again, with its traceback; its file is kept in --keep

A case is a kind and a number: the number seeds which valid file is altered and how. Each is read in a process of its
own with 2 GiB beyond what it has after its imports; a crash of that process, a case of more than 20 s of processor
time, an exception other than InputError, and an allocation beyond the limit are findings. Exit code 1 if there are any.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 20
"""Seconds of processor time after which a case hangs."""
SILENCE = 400
"""Seconds without an answer after which it hangs in any case: 10 s of the reading process, on a busy machine."""
MEMORY = 2 << 30
"""Bytes that a case may allocate."""
SHAPE = (2, 3, 24, 20)
"""Slices, coils, rows and columns of the scans that are altered."""
NETWORK = {"name": "unet", "widths": [4, 8], "blocks": 1, "embedding": 8}
CONFIG = """seed: 3
dataset: heads
data: {name: images, paths: [STACK], patch: 16}
network: {name: unet, widths: [4, 8], blocks: 1, embedding: 8}
prior: {precondition: edm}
schedule: {name: lognormal, sigma_min: 0.01, sigma_max: 20.0}
loss: {name: denoising}
training: {steps: 20, batch_size: 2, learning_rate: 1e-3, betas: [0.9, 0.99], ema_decay: [0.99, 0.999]}
"""
PARAMETERS = "sigma_max 20.5  # technique 1\nsigma_min 0.004\nlevels 30\nsd 0.31\ncount 100\nseed 0\ndimension 512\n"
VALUES = (
    "-1",
    "0",
    "1e400",
    "-1e400",
    "nan",
    ".nan",
    "NaN",
    "Infinity",
    "1e-320",
    "9" * 5000,
    "99999999999",
    "-0.0",
    "null",
    "true",
    "[]",
    "{}",
    "''",
    "2026-13-45",
    "!!python/name:os.system",
    "*a",
    "? [1]",
    "\x1b[2J",
    "=1+1",
    "\u2028",
    "a" * 70000,
    "[" * 3000,
    "{" * 3000,
    '{"a":' * 2000,
    "0x7fffffff",
    "1_000",
    "12:30:45",
    "!!binary x",
    "<<",
    "\x00",
)
"""What replaces a value of a text file."""


# ---- Valid files of every kind, made once a process.


def valid_files(folder: Path) -> dict[str, list[Path]]:
    """Write some valid files of each kind into a folder; kind -> paths."""
    import h5py
    import numpy as np
    import torch
    from PIL import Image

    from mri_score.evaluation.intervals import Factor, Intervals
    from mri_score.networks.ncsnv2 import NCSNv2
    from mri_score.priors.store import build_prior, save_prior
    from mri_score.readers.fastmri import write_fastmri
    from mri_score.training.checkpoint import save

    draws = np.random.default_rng(0)
    kspace = (draws.standard_normal(SHAPE) + 1j * draws.standard_normal(SHAPE)).astype(np.complex64)
    found: dict[str, list[Path]] = {}

    def add(kind: str, name: str) -> Path:
        found.setdefault(kind, []).append(folder / name)
        return folder / name

    rss = np.abs(kspace).sum(1)
    write_fastmri(add("scan", "scan.h5"), kspace, rss=rss, mask=draws.random(SHAPE[-1]) < 0.7)
    filters: list[dict[str, Any]] = [
        {"compression": "gzip", "shuffle": True},
        {"compression": "lzf", "fletcher32": True},
        {"chunks": (1, 1, 24, 20)},
    ]
    for number, settings in enumerate(filters):
        for version in ("earliest", "latest"):
            with h5py.File(add("scan", f"scan{number}{version}.h5"), "w", libver=version) as file:
                file.create_dataset("kspace", data=kspace, **settings)
                file["ismrmrd_header"] = "<ismrmrdHeader/>"
                file.create_dataset("mask", data=draws.random(SHAPE[-1]) < 0.7)
                file.attrs.update({"acquisition": "AXT2", "max": 1.0, "patient_id": np.bytes_(b"p1")})
            with h5py.File(add("images", f"stack{number}{version}.h5"), "w", libver=version) as file:
                file.create_dataset("image", data=np.abs(kspace[:, 0]), **({} if "chunks" in settings else settings))
                file["patient"] = ["a", "b"]
            with h5py.File(add("maps", f"maps{number}{version}.h5"), "w", libver=version) as file:
                file.create_dataset("maps", data=kspace, **settings)
            with h5py.File(add("mask", f"mask{number}{version}.h5"), "w", libver=version) as file:
                file.create_dataset(
                    "mask", data=draws.random(SHAPE[-2:]) < 0.5, **({} if "chunks" in settings else settings)
                )
    np.save(add("maps", "maps.npy"), kspace)
    np.save(add("mask", "mask.npy"), draws.random(SHAPE[-1]) < 0.5)
    np.save(add("picture", "image.npy"), np.abs(kspace[0, 0]))
    for mode in ("L", "RGB", "I;16"):
        pixels = draws.integers(0, 255, (24, 20, 3) if mode == "RGB" else (24, 20))
        image = Image.fromarray(pixels.astype(np.uint16 if mode == "I;16" else np.uint8))
        image.save(add("picture", f"{mode.replace(';', '')}.png"))
    try:
        import nibabel

        volume = nibabel.Nifti1Image(np.abs(kspace[0]).astype(np.float32), np.eye(4))
        nibabel.save(volume, add("images", "volume.nii"))
        nibabel.save(volume, add("images", "volume.nii.gz"))
    except ImportError:
        pass

    import scipy.io

    from mri_score.readers.ismrmrd_header import build_header
    from mri_score.writers.cfl import write_cfl
    from mri_score.writers.ismrmrd import Readout, write_ismrmrd

    lines = [
        Readout(kspace[number, :, :, line], counters={"kspace_encode_step_1": line, "slice": number})
        for number in range(SHAPE[0])
        for line in range(SHAPE[3])
    ]
    write_ismrmrd(add("ismrmrd", "scan.mrd"), build_header((24, 20), (24, 20), (0, 20), 3), lines)
    np.save(add("array", "scan.npy"), kspace)
    scipy.io.savemat(add("array", "v5.mat"), {"kspace": kspace, "note": "text"}, do_compression=True)
    parts = np.empty(kspace.T.shape, [("real", "f4"), ("imag", "f4")])
    parts["real"], parts["imag"] = kspace.T.real, kspace.T.imag
    with h5py.File(add("array", "v73.mat"), "w", userblock_size=512) as file:
        file.create_dataset("kspace", data=parts, chunks=(20, 24, 3, 1), compression="gzip")
    write_cfl(folder / "scan", kspace)
    add("array", "scan.cfl")
    add("array", "scan.hdr")

    torch.manual_seed(0)
    prior = build_prior(NETWORK, precondition="edm", sd=0.3, sigma_min=0.01, sigma_max=20.0)
    save_prior(add("prior", "prior.safetensors"), prior, NETWORK, {"step": 3, "denoising_errors": {"0.1": 0.3}})
    optimizer = torch.optim.Adam(prior.parameters())
    sum(weight.sum() for weight in prior.parameters()).backward()
    optimizer.step()
    state = {"step": 20, "images": 40, "model": prior.state_dict(), "ema": prior.state_dict(), "losses": [0.5]}
    found["checkpoint"] = [save(folder, {**state, "optimizer": optimizer.state_dict()})]
    published = {f"module.{key}": value for key, value in published_weights(NCSNv2("low", 4), "low").items()}
    published["module.sigmas"] = torch.tensor([9.0, 0.1])
    for zipped in (True, False):
        path = add("published", f"published{zipped}.pth")
        torch.save([published, {"step": 3}, 1, 2, published], path, _use_new_zipfile_serialization=zipped)

    add("config", "config.yml").write_text(CONFIG.replace("STACK", str(folder / "stack0earliest.h5")))
    add("parameters", "parameters.txt").write_text(PARAMETERS)
    add("intervals", "intervals.json")
    Intervals(0.9, "slice", (Factor(4.0, 1.7, 1.5, 40),), "brain", "ab", "m", 20, 8, "random", 4, 40).write(
        found["intervals"][0]
    )
    row = {
        "scan": "a",
        "patient": "a",
        "file": "f",
        "slice": 0,
        "law": "random",
        "nominal": 4.0,
        "mask_seed": 0,
        "method": "m",
        "title": "m",
        "steps": 3,
        "prior": "ab",
        "precision": "float32",
        "seed": 0,
        "draws": 1,
        "true": 3.9,
        "seconds": 1.0,
        "mvue_over_rss": 0.9,
        "hardware": "CPU",
        "noise_std": 0.1,
        "mvue_foreground_psnr": 30.0,
        "mvue_foreground_ssim": 0.9,
        "rss_whole_psnr": 29.0,
        "rss_whole_ssim": 0.8,
    }
    rows = [{**row, "mask_seed": seed} for seed in range(3)]
    add("cells", "cells.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    add("metrics", "metrics.csv").write_text(
        "file,target,region,method,psnr,ssim,nmse,seconds\na.h5,RSS,whole,m,30,.9,.1,1\n"
    )
    add("log", "log.jsonl").write_text('{"step": 3, "loss": 0.4}\n{"step": 9, "denoising_errors": {"0.1": 0.2}}\n')
    return found


def published_weights(network: Any, depth: str) -> dict[str, Any]:
    """The weights of an NCSN or NCSNv2 of this depth under their published names."""
    from mri_score.networks.ncsnv2 import publish

    return publish(network.state_dict(), depth)


# ---- What is done to them.


def altered(path: Path, draw: random.Random, out: Path) -> Path:
    """An altered copy of a valid file, in the folder `out`."""
    copy = out / path.name
    for other in (".cfl", ".hdr"):  # the two files of one array
        if path.suffix in (".cfl", ".hdr"):
            shutil.copy(path.with_suffix(other), copy.with_suffix(other))
    if path.suffix == ".hdr":
        copy.write_text(altered_text(path.read_text(), draw), encoding="utf-8", errors="surrogateescape")
        return copy
    if path.suffix == ".safetensors":
        return altered_prior(path, draw, out)
    if path.suffix in (".h5",) and draw.random() < 0.35:
        return hostile_hdf5(path, draw, copy)
    content = path.read_bytes()
    if path.suffix in (".yml", ".txt", ".json", ".jsonl", ".csv"):
        copy.write_bytes(altered_text(content.decode(), draw).encode("utf-8", "surrogateescape"))
    elif path.suffix in (".pth", ".pt") and draw.random() < 0.6:
        copy.write_bytes(altered_pickle(content, draw))
    elif path.name.endswith(".gz"):
        copy.write_bytes(gzip.compress(altered_bytes(gzip.decompress(content), draw, head=352)))
    elif path.suffix == ".npy" and draw.random() < 0.5:
        copy.write_bytes(altered_npy(content, draw))
    else:
        copy.write_bytes(altered_bytes(content, draw))
    return copy


def altered_bytes(content: bytes, draw: random.Random, head: int | None = None) -> bytes:
    """Some bytes overwritten, removed, repeated or inserted, half of them near the start, where headers are."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8, 30))):
        near = head or draw.choice((512, 2048, 8192, len(data)))
        place = draw.randrange(max(1, min(near, len(data))))
        kind = draw.randrange(7)
        if kind == 0:
            data[place : place + 1] = bytes([draw.randrange(256)])
        elif kind == 1 and data:
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 2:
            width = draw.choice((2, 4, 8))
            value = draw.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, draw.randrange(2**40)))
            data[place : place + width] = (value % 2 ** (8 * width)).to_bytes(width, draw.choice(("little", "big")))
        elif kind == 3:
            del data[place : place + draw.choice((1, 2, 8, 100))]
        elif kind == 4:
            data[place:place] = data[place : place + draw.choice((1, 8, 64, 512))]
        elif kind == 5 and draw.random() < 0.3:
            del data[place:]
        else:
            other = draw.randrange(max(1, len(data)))
            data[place : place + 16] = data[other : other + 16]
    return bytes(data)


def altered_text(text: str, draw: random.Random) -> str:
    """A value or a name replaced, lines removed or repeated, or bytes altered."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        kind = draw.randrange(6)
        if kind <= 2:
            words = list(re.finditer(r"[\w.+-]+", text))
            if words:
                word = draw.choice(words)
                text = text[: word.start()] + draw.choice(VALUES) + text[word.end() :]
        elif kind == 3:
            lines = text.splitlines(keepends=True)
            draw.shuffle(lines)
            text = "".join(lines[: draw.randrange(len(lines) + 1)] + lines[:1])
        elif kind == 4:
            text = text[: draw.randrange(len(text) + 1)]
        else:
            text = altered_bytes(text.encode("utf-8", "surrogateescape"), draw).decode("utf-8", "surrogateescape")
    return text


def altered_npy(content: bytes, draw: random.Random) -> bytes:
    """A header with another shape, type or order."""
    header = (
        draw.choice(
            (
                "{'descr': '<c8', 'fortran_order': False, 'shape': (1000000, 1000000), }",
                "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }",
                "{'descr': '<f8', 'fortran_order': True, 'shape': (-1, 4), }",
                "(" * 4000,
                "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }",
                "{'descr': '<U99999999', 'fortran_order': False, 'shape': (), }",
                "{'descr': '>c16', 'fortran_order': False, 'shape': (3,), }",
                "__import__('os')",
            )
        ).encode()
        + b"\n"
    )
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content[128:]


def altered_pickle(content: bytes, draw: random.Random) -> bytes:
    """The pickle of a checkpoint altered, in its zip with right checksums; else all bytes of a file without zip."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return altered_bytes(content, draw, head=4096)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for part in old.infolist():
            data = old.read(part)
            if part.filename.endswith("data.pkl"):
                if draw.random() < 0.5:  # a number, such as a size, a stride or an offset, becomes another
                    places = [found.start() + 1 for found in re.finditer(rb"K[\x00-\x20]", data)]
                    for place in draw.sample(places, min(len(places), draw.choice((1, 2, 5)))):
                        data = data[:place] + bytes([draw.choice((0, 1, 2, 255))]) + data[place + 1 :]
                else:
                    data = altered_bytes(data, draw)
            compressed = zipfile.ZIP_DEFLATED if draw.random() < 0.02 else zipfile.ZIP_STORED
            new.writestr(zipfile.ZipInfo(part.filename), data, compress_type=compressed)
    return out.getvalue()


def altered_prior(path: Path, draw: random.Random, out: Path) -> Path:
    """Weights or record altered; mostly with the SHA-256 that belongs to them, as whoever forges one would."""
    from mri_score.files import sha256

    copy, record = out / path.name, path.with_suffix(".json").read_text()
    copy.write_bytes(altered_bytes(path.read_bytes(), draw) if draw.random() < 0.5 else path.read_bytes())
    if draw.random() < 0.7:
        record = altered_text(record, draw)
    if draw.random() < 0.8:
        try:
            values = json.loads(record)
            for key in ("widths", "blocks", "embedding", "channels"):
                if draw.random() < 0.2:
                    values["network"][key] = draw.choice((0, -1, 10**9, [10**6] * 9, [4, 8], "a", None, 1.5, 10**30))
            values.pop("record_sha256", None)
            values["sha256"] = sha256(copy)
            record = json.dumps(values)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass
    copy.with_suffix(".json").write_text(record, encoding="utf-8", errors="surrogateescape")
    return copy


def hostile_hdf5(path: Path, draw: random.Random, copy: Path) -> Path:
    """A file whose structure is valid and whose contents are not: sizes, filters, links, types and attributes."""
    import h5py
    import numpy as np

    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "a") as file:
        key = draw.choice(list(file))
        kind, shape = draw.randrange(12), (3, 3, 24, 20)
        if kind != 8:
            del file[key]
        if kind == 0:
            file.create_dataset(
                key, (draw.choice((10**5, 10**9)), 512, 512), "c16", chunks=(1, 64, 64), compression="gzip"
            )
        elif kind == 1:  # a chunk that inflates without end: zeros, deflated twice over
            import zlib

            dataset = file.create_dataset(key, shape, "c8", chunks=shape, compression="gzip")
            dataset.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(draw.choice((1000, 10**7, 3 * 10**8))), 9))
        elif kind == 2:
            dataset = file.create_dataset(key, shape, "c8", chunks=shape, compression="lzf")
            dataset.id.write_direct_chunk((0, 0, 0, 0), draw.randbytes(draw.choice((1, 1000, 10**6))))
        elif kind == 3:
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk(shape)
            for _ in range(draw.choice((2, 5))):
                plist.set_deflate(9)
            h5py.h5d.create(file.id, key.encode(), h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create_simple(shape), plist)
        elif kind == 4:
            file[key] = draw.choice(
                (h5py.SoftLink("/other"), h5py.ExternalLink("/etc/passwd", "/x"), h5py.SoftLink(f"/{key}"))
            )
        elif kind == 5:
            types: tuple[Any, ...] = (
                h5py.vlen_dtype(np.float32),
                h5py.ref_dtype,
                "V7",
                [("a", "f4"), ("b", h5py.string_dtype())],
                "S0",
            )
            file.create_dataset(key, (3,), draw.choice(types[:-1]))
        elif kind == 6:
            file.create_dataset(
                key,
                data=np.full(shape, draw.choice((np.nan, np.inf, 1e300, 0)), draw.choice(("c16", ">c8", "f2", ">f8"))),
            )
        elif kind == 7:
            file.create_dataset(key, data=np.ones(draw.choice(((), (0,), (1, 1, 1, 1, 1), (2, 0, 4, 4), (3, 24, 20)))))
        elif kind == 8:
            for number in range(draw.choice((1, 300))):
                file.attrs[f"\x1b[31m{number}"] = draw.choice(
                    ("\x1b]0;x\x07", "a\nError: forged", np.zeros(5000), h5py.Empty("f"), b"\xff")
                )
            file.attrs["acquisition"] = "\x1b[2J\r\nfinished"
        elif kind == 9:
            deep = file
            for _ in range(50):
                deep = deep.create_group("g")
            deep[key] = file
        elif kind == 10:
            file[key] = draw.choice(
                ("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "<a>" * 100000, "<x>" + "\t" * 100, "<x/>" * 3)
            )
        else:
            for number in range(1200):
                file.create_group(f"{key}{number}")
    return copy


# ---- How each kind is read, as far as the commands do before they compute.


def read_scan(path: Path) -> None:
    from mri_score.data.scan import Scan
    from mri_score.errors import InputError, visible
    from mri_score.readers import open_scan

    file = open_scan(path)
    lines = [*file.about().values(), *Scan(file).notes]
    if len(str(lines)) > 10**6 or any(len(line) > 10**5 for line in lines):
        raise AssertionError("a message of a megabyte")
    for number in range(min(file.slices, 3)):
        try:
            file.kspace(number)
        except InputError as error:
            if visible(str(error)) != str(error):
                raise AssertionError("control characters in a message") from error


def read_array(path: Path) -> None:
    from mri_score.readers import open_scan

    file = open_scan(path, axes=("slices", "coils", "rows", "cols") if path.suffix in (".npy", ".mat") else None)
    file.about()
    file.kspace(0)


def read_info(path: Path) -> None:
    """The whole command, in this process: exit code and what it prints."""
    from click.testing import CliRunner

    from mri_score.cli import main
    from mri_score.errors import visible

    result = CliRunner().invoke(main, ["info", str(path)])
    if result.exit_code not in (0, 1, 2) or "Traceback" in result.output or "not expected" in result.output:
        raise AssertionError(f"exit code {result.exit_code}: {result.output[-300:]} {result.exception!r}")
    if visible(result.output, keep="\n\t") != result.output:
        raise AssertionError(f"control characters in {result.output[-300:]!r}")


def read_images(path: Path) -> None:
    from mri_score.sources.magnitude_images import ImageStacks

    images = ImageStacks([path], augment=False)
    images.image(0)


def read_picture(path: Path) -> None:
    from mri_score.cli.run.sample import _read_image

    _read_image(path, 0)


def read_maps(path: Path) -> None:
    from mri_score.readers.maps import read_maps as read

    read(path, SHAPE)[0:1]


def read_mask(path: Path) -> None:
    from mri_score.data.masks import make_mask

    make_mask(str(path), SHAPE[-2:])


def read_prior(path: Path) -> None:
    import torch

    from mri_score.evaluation.out_of_distribution import threshold_at
    from mri_score.priors.store import load_prior

    prior = load_prior(path)
    prior.denoise(torch.zeros(1, 8, 8, dtype=torch.complex64), torch.tensor([1.0]))
    threshold_at(4.0, prior.about.get("ood_thresholds"))


def read_published(path: Path) -> None:
    from mri_score.priors.published import import_published

    import_published(path)


def read_checkpoint(path: Path) -> None:
    import torch

    from mri_score.priors.store import build_prior
    from mri_score.training import checkpoint
    from mri_score.training.ema import Ema
    from mri_score.training.loop import _restore

    state = checkpoint.load(path)
    prior = build_prior(NETWORK, precondition="edm", sd=0.3, sigma_min=0.01, sigma_max=20.0)
    _restore(path, prior, [Ema(prior)], torch.optim.Adam(prior.parameters()), state)


def read_config(path: Path) -> None:
    from mri_score import experiment
    from mri_score.noise.parameters import Parameters

    config = experiment.read_config(path)
    experiment.training_options(config, "cpu")
    parameters = Parameters(sigma_max=20.0, sd=0.3, dimension=512)
    experiment.make_source(config)
    experiment.make_loss(config, parameters)
    experiment.make_prior(config, parameters)


def read_parameters(path: Path) -> None:
    from mri_score.noise.parameters import read_parameters as read

    read(path)


def read_intervals(path: Path) -> None:
    from mri_score.evaluation.intervals import read_intervals as read

    read(path).caution(4.0, "random")


def read_cells(path: Path) -> None:
    from mri_score.benchmark.summary import markdown, summarise
    from mri_score.benchmark.summary import read_cells as read

    rows = read(path)
    markdown(summarise(rows), rows)


def read_metrics(path: Path) -> None:
    from mri_score.pipeline.derived import read_metrics as read

    read(path)


def read_log(path: Path) -> None:
    from mri_score.priors.card import training_curve
    from mri_score.training.log import read_log as read

    training_curve(read(path))


READERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "scan": ("scan", read_scan),
    "info": ("scan", read_info),
    "ismrmrd": ("ismrmrd", read_scan),
    "array": ("array", read_array),
    "images": ("images", read_images),
    "maps": ("maps", read_maps),
    "mask": ("mask", read_mask),
    "picture": ("picture", read_picture),
    "prior": ("prior", read_prior),
    "published": ("published", read_published),
    "checkpoint": ("checkpoint", read_checkpoint),
    "config": ("config", read_config),
    "parameters": ("parameters", read_parameters),
    "intervals": ("intervals", read_intervals),
    "cells": ("cells", read_cells),
    "metrics": ("metrics", read_metrics),
    "log": ("log", read_log),
}
"""Kind -> which files are altered, and what reads them."""


# ---- The process that reads, and the one that watches it.


def run_case(kind: str, number: int, files: dict[str, list[Path]], folder: Path) -> dict[str, Any]:
    """Alter a file and read it: {"end": "read", "refused" or a finding}."""
    from mri_score.errors import InputError

    source, read = READERS[kind]
    draw = random.Random(f"{kind} {number}")
    try:
        path = altered(draw.choice(files[source]), draw, folder)
    except Exception as error:  # h5py refuses to write some of it
        return {"end": "refused", "text": f"not written: {error!r}"}
    started = time.process_time()
    try:
        read(path)
        end, text = "read", ""
    except InputError as error:
        end, text = "refused", str(error)[:300]
    except MemoryError:
        return {"end": "allocation", "text": traceback.format_exc(limit=-6)}
    except Exception:
        return {"end": "exception", "text": traceback.format_exc(limit=-6)}
    spent = time.process_time() - started
    return {"end": end if spent < PATIENCE else "hang", "text": text, "spent": spent}


def serve() -> None:
    """Read cases from standard input, one JSON a line, and answer each."""
    import resource
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "valid").mkdir()
        (folder / "altered").mkdir()
        os.chdir(folder)
        files = valid_files(folder / "valid")
        for source, read in READERS.values():  # what is imported late counts for nothing
            read(files[source][0])
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            kind, number = json.loads(line)
            print(json.dumps(run_case(kind, number, files, folder / "altered")), flush=True)


class Reader:
    """The process that reads; started again after a crash or a hang."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def run(self, kind: str, number: int) -> dict[str, Any]:
        if self.process is None:
            self.start()
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(json.dumps([kind, number]) + "\n")
        self.process.stdin.flush()
        started = time.monotonic()
        try:
            answer = self.answers.get(timeout=SILENCE)
        except queue.Empty:
            answer = {"end": "hang", "text": f"no answer within {SILENCE} s"}
        if answer is None:
            answer = {"end": "crash", "text": f"the process ended with {self.process.wait()}"}
        if answer["end"] in ("hang", "crash"):
            self.end()
        return answer | {"seconds": time.monotonic() - started}

    def start(self) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--serve"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=_collect, args=(self.process.stdout, self.answers), daemon=True).start()
        if (ready := self.answers.get(timeout=300)) is None or "ready" not in ready:
            raise SystemExit("the process that reads did not start; run with --serve to see why")

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _collect(lines: Any, answers: queue.Queue[dict[str, Any] | None]) -> None:
    for line in lines:
        if line.startswith("{"):
            answers.put(json.loads(line))
    answers.put(None)


def fuzz(
    cases: int | None,
    seconds: float | None,
    seed: int = 0,
    kinds: list[str] | None = None,
    say: Callable[[str], None] = print,
) -> tuple[Counter[str], list[str]]:
    """Run cases, kinds by turns, until either limit; (how many ended how, texts of the findings)."""
    reader, ends, findings = Reader(), Counter[str](), []
    reader.start()  # before the time is taken: imports and valid files take longer than a hundred cases
    names, number, stop = kinds or list(READERS), 0, time.monotonic() + (seconds or 1e12)
    try:
        while (cases is None or number < cases) and time.monotonic() < stop:
            kind, one = names[number % len(names)], seed * 10**9 + number // len(names)
            answer = reader.run(kind, one)
            ends[answer["end"]] += 1
            if answer["end"] not in ("read", "refused"):
                findings.append(
                    f"{answer['end']}: --kind {kind} --only {one} ({answer['seconds']:.1f} s)\n{answer['text']}"
                )
                say(findings[-1])
            number += 1
            if number % 5000 == 0:
                say(f"{number} cases: {dict(ends)}")
    finally:
        reader.end()
    return ends, findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=READERS, action="append")
    parser.add_argument("--only", type=int, help="number of one case, with --kind")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-case"), help="folder for the file of --only")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        return serve()
    if given.only is not None:
        (given.keep / "valid").mkdir(parents=True, exist_ok=True)
        print(json.dumps(run_case(given.kind[0], given.only, valid_files(given.keep / "valid"), given.keep), indent=1))
        return None
    cases = 2000 if given.cases is None and given.seconds is None else given.cases
    started = time.monotonic()
    ends, findings = fuzz(cases, given.seconds, given.seed, given.kind)
    spent = time.monotonic() - started
    print(f"{sum(ends.values())} altered files in {spent:.0f} s: {dict(ends)}; {len(findings)} findings")
    raise SystemExit(bool(findings))


if __name__ == "__main__":
    main()
