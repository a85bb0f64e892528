"""The command line: one thin command a file, loaded only when it is called."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from mri_score import __version__
from mri_score.errors import InputError

COMMANDS = {
    "simulate": "Write simulated scans in the fastMRI layout.",
    "info": "Tell what a scan holds, and what to watch out for.",
    "maps": "Make ESPIRiT coil maps.",
    "calibrate": "Measure a dataset's noise levels and statistics.",
    "train": "Train a prior, from clean or from noisy scans.",
    "reconstruct": "Reconstruct undersampled scans with their uncertainty.",
    "denoise": "Denoise full scans at their own noise level, with an uncertainty map.",
    "sample": "Sample a prior: from noise, around known pixels, between two samples.",
    "intervals": "Fit intervals that keep their promise, on scans with truth.",
    "compare": "Compare methods over scans, accelerations and masks.",
    "evaluate": "Score reconstructions as fastMRI does.",
    "fid": "Judge samples of a prior: their distance to real images, and whether they are copies.",
    "priors": "List the bundled priors.",
    "export-prior": "Make of a training run a prior to pass on, with its card.",
    "import-checkpoint": "Make a prior of a published checkpoint of NCSN, NCSNv2 or NCSN++.",
}


class BadInput(click.ClickException):
    """One message, exit code 2."""

    exit_code = 2


class Commands(click.Group):
    """The commands by name: listing them imports none, and bad input ends with one message and exit code 2."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return import_module(f"{__name__}.{name.replace('-', '_')}").command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except InputError as error:
            raise BadInput(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mri-score")
def main() -> None:
    """Score-based MRI reconstruction: from multi-coil k-space to an image with its uncertainty.

    \b
    Try it without any data:
      mri-score reconstruct --accel 4
    """
