"""mri-score protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import names
from .log import note, say
from .options import ANY_PATH, FOLDER, device_options, prior_option, read_numbers

PROTOCOLS = ("csgm", "inversebench", "snap")
"""The names of `mri_score.benchmark.protocols.PROTOCOLS`, repeated here because --help must not import torch."""


@click.command("protocol")
@click.argument("name", type=click.Choice(PROTOCOLS))
@click.argument("data", type=ANY_PATH)
@click.option("--out", "-o", type=FOLDER, default=Path("protocol"), show_default=True, help="Folder for the results.")
@prior_option
@click.option("--accel", default="4,8", show_default=True, metavar="LIST", help="Accelerations.")
@click.option(
    "--method", type=names.METHOD, default="matched-draw", show_default=True,
    help="Method as for mri-score reconstruct; the paper's own are langevin-norm-matched (csgm), dps, daps, diffpir,"
    " red-diff and split-gibbs (inversebench, snap).",
)  # fmt: skip
@click.option("--no-prior", is_flag=True, help="Zero-filled images only, to compare the data with the published row.")
@click.option(
    "--samples", "-n", type=click.IntRange(1), default=1, show_default=True, help="Number of draws to average."
)
@click.option("--steps", type=click.IntRange(2), help="Number of noise levels.  [default: the method's]")
@click.option(
    "--slices",
    type=click.Choice(["middle", "all"]),
    default="middle",
    show_default=True,
    help="Slices to use of each file.",
)
@click.option("--size", type=click.IntRange(16), help="Side of the images in pixels.  [default: the paper's]")
@click.option(
    "--snr", type=float, metavar="DB", help="Signal-to-noise ratio of the added noise.  [default: the paper's]"
)
@click.option("--seed", default=0, show_default=True, help="Random seed of masks, noise and draws.")
@device_options
def command(name: str, data: Path, out: Path, accel: str, **options: Any) -> None:
    """Compute one row of a published table from DATA, fully sampled fastMRI files, by the paper's conventions and ours.

    Each method is scored twice: with the preparation, masks, scale and metrics of the paper, and with those of this
    project for masks of the same kind. Compare published numbers only with the scores by the paper's conventions, on
    the paper's files. The table is written to table.csv in --out.

    \b
    Examples:
      mri-score protocol inversebench multicoil_test --prior priors/mri-knee.safetensors --method daps
      mri-score protocol snap multicoil_test --prior runs/brain --samples 16
    """
    from dataclasses import replace

    import torch

    from mri_score.benchmark import protocols
    from mri_score.files import make_folder, write_text
    from mri_score.priors.store import load_prior
    from mri_score.reconstruction import WalkOptions

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    protocol = protocols.PROTOCOLS[name]
    protocol = replace(protocol, size=options["size"]) if options["size"] else protocol
    protocol = replace(protocol, snr=options["snr"]) if options["snr"] is not None else protocol
    accelerations = read_numbers(float, "--accel", accel)
    slices = protocols.full_slices(data, options["slices"])
    methods: dict[str, protocols.Method] = {protocols.ZERO_FILLED: protocols.zero_filled}
    if not options["no_prior"]:
        walk = WalkOptions(
            options["method"], options["steps"], options["samples"], options["seed"], device=options["device"]
        )
        methods[options["method"]] = protocols.by_sampling(load_prior(options["prior"]), walk)
    rows = protocols.table(protocol, slices, accelerations, methods, options["seed"], options["samples"])
    make_folder(out)
    write_text(out / "table.csv", protocols.as_csv(rows))
    say(f"{protocol.title}: {protocol.data}; here {len(slices)} of {data}")
    for trap in protocol.traps:
        note(trap, indent=2)
    say(f"  {'conventions':<13}{'method':<24}{'R':>4}{'true R':>8}{'PSNR':>8}{'SSIM':>8}")
    for row in rows:
        true = f"{row['true acceleration']:.2f}" if "true acceleration" in row else ""
        say(
            f"  {row['conventions']:<13}{row['method']:<24}{row['acceleration']:>4g}{true:>8}"
            f"{row['PSNR']:>8.2f}{row['SSIM']:>8.3f}"
        )
    say(f"{out / 'table.csv'}")
