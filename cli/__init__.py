"""The command line: one file for each command, imported only when the command is called."""

from __future__ import annotations

import shlex
from importlib import import_module
from typing import Any

import click

from mri_score import __version__

from . import log
from .exits import ended
from .names import COMMAND_LINE
from .trust import with_trust_option

COMMANDS = {
    "simulate": "Write simulated scans in the fastMRI format.",
    "info": "Show what a scan file contains, with warnings.",
    "convert": "Convert scans between fastMRI, ISMRMRD and BART files.",
    "maps": "Estimate coil sensitivity maps with ESPIRiT.",
    "calibrate": "Measure the noise levels and statistics of a dataset.",
    "train": "Train a prior from clean, noisy or undersampled scans.",
    "reconstruct": "Reconstruct undersampled scans, with uncertainty maps.",
    "status": "Show how far a study of many scans has come.",
    "merge": "Join the scores and reports of several output folders.",
    "bids": "Reconstruct a BIDS dataset as a BIDS App.",
    "serve": "Reconstruct scans at the scanner: a server for MRD streams.",
    "stream": "Reconstruct one MRD stream from standard input to standard output.",
    "denoise": "Denoise fully sampled scans, with uncertainty maps.",
    "sample": "Draw images from a prior; complete an image; interpolate between two samples.",
    "intervals": "Fit conformal intervals on fully sampled scans.",
    "compare": "Compare methods over scans, accelerations and masks.",
    "protocol": "Compute one row of a published table, by its conventions and by ours.",
    "evaluate": "Score reconstructions with the metrics of fastMRI.",
    "fid": "Evaluate samples of a prior: Fréchet distance to real images, copies of training images.",
    "likelihood": "Bits per dimension of images under a prior.",
    "priors": "List the bundled and the installed priors.",
    "export-prior": "Export a trained prior with its model card.",
    "config": "Show, describe or compare training configs and the settings of runs.",
    "doctor": "Check this installation, with a self-test.",
    "package-prior": "Pack a prior as a wheel that pip installs.",
    "import-checkpoint": "Import a published checkpoint of NCSN, NCSNv2, NCSN++ or EDM as a prior.",
    "export-checkpoint": "Export a prior as a checkpoint that the published code loads.",
    "import-config": "Translate the config of another project, key by key.",
}


class Commands(click.Group):
    """The commands by name. Listing them imports none; `ended` turns their errors into messages and exit codes."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = import_module(f"{__name__}.{name.replace('-', '_')}").command
        return with_trust_option(log.with_log_options(command))

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        context.meta[COMMAND_LINE] = shlex.join(["mri-score", *arguments])
        return super().parse_args(context, arguments)

    def main(self, *arguments: Any, **options: Any) -> Any:
        with log.printed():
            return super().main(*arguments, **options)

    def invoke(self, context: click.Context) -> Any:
        with ended():
            return super().invoke(context)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mri-score")
def main() -> None:
    """Score-based MRI reconstruction: from multi-coil k-space to an image with its uncertainty.

    \b
    Try it on a simulated scan, without any data:
      mri-score reconstruct --accel 4

    \b
    Exit codes: 0 all is done; 1 some files failed, the others are done;
    2 wrong usage, or nothing was done; 130 stopped by Ctrl-C, 143 by SIGTERM,
    129 by SIGHUP.
    """
