"""The server for scanners: what the stream adds to a slice's reconstruction, and how soon it listens."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import numpy as np
from harness import Row, Spread, compare

from mri_score.data.masks import make_mask
from mri_score.data.scan import Scan
from mri_score.priors.store import find_prior, load_prior
from mri_score.readers.ismrmrd_header import build_header
from mri_score.readers.received import Received, open_received
from mri_score.reconstruction import sample_posterior
from mri_score.simulation.phantom import phantom
from mri_score.streaming.session import Session
from mri_score.streaming.settings import StreamSettings
from mri_score.streaming.slices import Slices
from mri_score.streaming.wire import ACQUISITION, CLOSE, HEADER, READOUT_HEADER, WireClient, read_message

NAME = "stream"
SIDE = {"quick": 128, "full": 256}
COILS = 8
WANTED = 0.95
"""Time of the reconstruction alone, divided by that through the stream."""
LISTENING = 0.5
"""Seconds from the start of the program within which the server listens."""


def readouts(side: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Header and samples of the readouts of a slice at R = 4."""
    head = phantom(side, coils=COILS)
    mask = make_mask("variable-density", (side, side))
    for line in mask.reshape(-1, side)[0].nonzero()[:, 0].tolist():
        header = np.zeros((), READOUT_HEADER)
        header["number_of_samples"], header["active_channels"], header["center_sample"] = side, COILS, side // 2
        header["idx"]["kspace_encode_step_1"] = line
        yield header[()], np.ascontiguousarray(head.kspace[0, :, :, line].numpy())


def listening() -> float:
    """Processor seconds of the server from its start to the line that says it listens."""
    command = [sys.executable, "-m", "mri_score", "serve", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.readline()  # type: ignore[union-attr]
    process.kill()
    used = os.wait4(process.pid, 0)[2]
    process.returncode = 0
    return used.ru_utime + used.ru_stime


def run(sizes: str, threads: int) -> list[Row]:
    side = SIDE[sizes]
    xml = build_header((side, side), (side, side), (0, side), COILS).decode()
    lines = list(readouts(side))
    data = struct.pack("<HI", HEADER, len(xml) + 1) + xml.encode() + b"\0"
    data += b"".join(struct.pack("<H", ACQUISITION) + header.tobytes() + y.tobytes() for header, y in lines)
    data += struct.pack("<H", CLOSE)
    settings = StreamSettings("exact-draw", "brain-fast", samples=2, steps=10, threads=threads, device="cpu")
    slices, prior = Slices(settings.prior), load_prior(find_prior(settings.prior))

    def stream() -> None:
        receive = partial(read_message, io.BytesIO(data))
        assert Session(receive, WireClient(io.BytesIO()), settings, [], slices).run()

    def direct() -> None:
        positions = [np.zeros((side, 0), np.float32)] * len(lines)
        headers, samples = np.array([header for header, _ in lines]), [y for _, y in lines]
        scan = Scan(open_received(Received(xml, headers, samples, positions)))
        options = {"steps": settings.steps, "samples": settings.samples, "device": "cpu"}
        sample_posterior(scan.acquisition(0), prior, settings.method, slices=[0], **options)

    size = f"{COILS} coils, {side} x {side}, {settings.steps} levels, {settings.samples} draws"
    return [
        compare(
            f"a slice through the stream, {size}",
            "the same reconstruction alone",
            stream,
            direct,
            sizes=sizes,
            wanted=WANTED,
        ),
        Row(
            "serve: processor time until it listens",
            "the limit",
            Spread.of([listening() for _ in range(5)]),
            Spread.exact(LISTENING),
            wanted=1,
        ),
    ]
