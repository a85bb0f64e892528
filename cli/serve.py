"""mri-score serve."""

from __future__ import annotations

from typing import Any

import click

from .log import say
from .options import stream_options


@click.command("serve")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9002,
    show_default=True,
    help="Port to listen on; 0: any free port.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True,
    help="Address to listen on; 0.0.0.0 for all. There is no password: let only the scanner's network reach it.",
)  # fmt: skip
@click.option(
    "--connections", type=click.IntRange(1), default=4, show_default=True,
    help="Number of scans reconstructed at the same time, each in its own process; further scans wait.",
)  # fmt: skip
@stream_options
def command(port: int, host: str, connections: int, **options: Any) -> None:
    """Reconstruct scans at the scanner: a server for the MRD streams of FIRE, OpenRecon and clients of Gadgetron.

    Each slice is reconstructed as soon as its last readout has arrived. The image is sent back and, for methods that
    draw, a map of the standard deviation. The config name that a client sends selects the method and the prior: a
    method, a prior, METHOD+PRIOR, or mri_score for the options below. A client can change further settings with a JSON
    text such as {"parameters": {"samples": 8}}. SIGTERM stops the server.

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
