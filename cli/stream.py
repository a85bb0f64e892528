"""mri-score stream."""

from __future__ import annotations

from typing import Any

import click

from .options import stream_options


@click.command("stream")
@click.option(
    "--config", default="mri_score", show_default=True, metavar="NAME",
    help="Method, prior, or METHOD+PRIOR; the config message of a version 1 stream overrides it.",
)  # fmt: skip
@stream_options
def command(config: str, **options: Any) -> None:
    """Reconstruct one scan from standard input to standard output, as an MRD stream of version 1 or 2.

    This is for pipes, containers and Tyger. The first bytes of the stream tell its version; version 2 needs the package
    mrd-python. Log messages go to standard error.

    \b
    Example:
      mri-score stream --method exact-draw < scan.mrd > images.mrd
    """
    from mri_score.streaming.settings import StreamSettings

    settings = StreamSettings(**options)
    from .run.serve import stream_one

    stream_one(config, settings)
