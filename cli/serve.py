"""mri-score serve."""

from __future__ import annotations

from typing import Any

import click

from .log import say
from .options import stream_options


@click.command("serve")
@click.option("--port", type=click.IntRange(0, 65535), default=9002, show_default=True, help="0 takes a free port.")
@click.option(
    "--host", default="127.0.0.1", show_default=True,
    help="Address to listen on; 0.0.0.0 for all. There is no password: let only the scanner's network reach it.",
)  # fmt: skip
@click.option(
    "--connections", type=click.IntRange(1), default=4, show_default=True,
    help="Scans reconstructed at the same time, a process each; more wait.",
)  # fmt: skip
@stream_options
def command(port: int, host: str, connections: int, **options: Any) -> None:
    """Reconstruct scans at the scanner: a server for MRD streams, as FIRE, OpenRecon and Gadgetron's clients send them.

    Each slice is reconstructed when its last readout came, and sent back as an image and, for methods that draw, a map
    of the standard deviation. A client chooses by its config name: mri_score (the options below), a method, a prior, or
    METHOD+PRIOR; and by a JSON text {"parameters": {"samples": 8, ...}}. SIGTERM stops the server.

    \b
    Examples:
      mri-score serve
      mri-score serve --host 0.0.0.0 --method exact-draw --steps 20 --samples 4
    """
    from mri_score.streaming.server import listen
    from mri_score.streaming.settings import StreamSettings

    settings = StreamSettings(**options)
    listener = listen(host, port)
    address, port = listener.getsockname()[:2]
    say(f"listening on {address} port {port}")
    from .run.serve import serve_all

    serve_all(listener, connections, settings)
