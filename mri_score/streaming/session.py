"""One connection from its first message to CLOSE: configuration, header, readouts in; images and texts out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mri_score.errors import InputError
from mri_score.readers.encodings import STEPS, parse_encodings
from mri_score.streaming.collect import Collector, Group, imaging, zero_filled
from mri_score.streaming.images import Series
from mri_score.streaming.settings import StreamSettings, by_name, by_parameters, describe
from mri_score.streaming.wire import (
    CLOSE,
    CONFIG_FILE,
    CONFIG_TEXT,
    HEADER,
    TEXT,
    Client,
    Message,
    Readout,
    StreamEnded,
)

if TYPE_CHECKING:
    from mri_score.readers.geometry import Geometry

log = logging.getLogger(__name__)

LARGEST_SCAN = 8 << 30
"""Bytes of readouts that one connection may hold at a time."""


class Found(Protocol):
    """One reconstructed image."""

    @property
    def magnitude(self) -> np.ndarray:
        """(rows, cols), in the units of k-space."""
        ...

    @property
    def std(self) -> np.ndarray | None:
        """(rows, cols), or None for a method or number of draws without a spread."""
        ...

    @property
    def place(self) -> Geometry | None:
        """Where it lies in the patient."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Texts for the client."""
        ...


Reconstruct = Callable[[str, Group, StreamSettings], Iterator["Found | InputError"]]
"""From the ISMRMRD header, the readouts of one image or slab, and settings, the images; an error in place of an image
that could not be reconstructed.
"""


class Session:
    """The exchange of messages with one client.

    receive: waits for the next message. client: gets what is sent. settings: of the server. priors: the names that a
    client may ask for. reconstruct: the reconstruction of one image or slab.
    """

    def __init__(
        self,
        receive: Callable[[], Message | Readout],
        client: Client,
        settings: StreamSettings,
        priors: Sequence[str],
        reconstruct: Reconstruct,
    ) -> None:
        self.receive, self.client = receive, client
        self.settings, self.priors, self.reconstruct = settings, priors, reconstruct
        self.header: str | None = None
        self.collector = Collector()
        self.said: set[str] = set()
        self.failures = 0
        self.columns = 0
        """Phase-encoding steps of the matrix, by the header."""
        self._came = self._taken = 0
        """Bytes of the readouts that were received, and of those taken from the queue."""
        self._series: dict[str, Series] = {}

    def run(self) -> bool:
        """Process messages until CLOSE, the end of the connection, or an error.

        A client whose messages cannot be read gets a text and CLOSE. Returns whether every image was reconstructed.
        """
        asked = False
        try:
            for item in self._items():
                asked = True
                self._take(item)
            for group in self.collector.rest():
                self._reconstruct(group)
            if self.collector.late:
                self._note(f"{self.collector.late} readouts came after the last one of their slice and are left out")
            if asked and not self.collector.done:
                self._fail("no readout of an image came")
        except StreamEnded:
            log.info("the client closed the connection before %s", "CLOSE" if asked else "its first message")
            return not asked
        except InputError as error:
            self._fail(str(error))
        self.client.close()
        return not self.failures

    def stop(self, reason: str) -> None:
        """Tell the client why the connection ends before the scan does."""
        self.client.text(reason)
        self.client.close()

    def _items(self) -> Iterator[Message | Readout]:
        """The messages up to CLOSE; a thread reads them meanwhile, so that the client never has to wait."""
        queue: SimpleQueue[Message | Readout | Exception] = SimpleQueue()

        def receive() -> None:
            try:
                while True:
                    item = self.receive()
                    if isinstance(item, Readout):
                        self._came += item.nbytes
                    if self._came - self._taken + self.collector.size > LARGEST_SCAN:
                        raise InputError(f"more than {LARGEST_SCAN >> 30} GiB of readouts are waiting; send fewer")
                    queue.put(item)
                    if isinstance(item, Message) and item.kind == CLOSE:
                        return
            except (InputError, StreamEnded) as error:
                queue.put(error)
            except (OSError, ValueError):  # reset, timed out, or closed by this side
                queue.put(StreamEnded())

        Thread(target=receive, daemon=True).start()
        while True:
            item = queue.get()
            if isinstance(item, Exception):
                raise item
            if isinstance(item, Message) and item.kind == CLOSE:
                return
            yield item

    def _take(self, item: Message | Readout) -> None:
        if isinstance(item, Readout):
            self._taken += item.nbytes
            if (group := self.collector.add(item)) is not None:
                self._reconstruct(group)
        elif item.kind in (CONFIG_FILE, CONFIG_TEXT):
            text = item.text.strip()
            if text.startswith("{"):
                self._configure(*by_parameters(self.settings, text, self.priors))
            elif text.startswith("<"):
                self._note("the config is one of another program and is left out; the defaults are used")
            else:
                self._configure(*by_name(self.settings, text, self.priors))
        elif item.kind == TEXT:
            if item.text.lstrip().startswith("{"):
                self._configure(*by_parameters(self.settings, item.text, self.priors))
            else:
                log.info("the client says: %s", item.text[:200])
        elif item.kind == HEADER:
            self._take_header(item.text)
        else:
            self._note("images and waveforms are not used and are left out")

    def _configure(self, settings: StreamSettings, notes: Sequence[str]) -> None:
        self.settings = settings
        for note in notes:
            self._note(note)

    def _take_header(self, text: str) -> None:
        self.header = text
        try:
            encoding = parse_encodings(text, "the header of the stream").encodings[0]
        except InputError as error:
            self._fail(str(error))
            return
        self.columns = encoding.encoded.matrix[1]
        second = encoding.limits.get(STEPS[1])
        average = encoding.limits.get("average")
        self.collector.whole = encoding.encoded.matrix[2] > 1 and second is not None and second.maximum > 0
        self.collector.last_average = 0 if average is None else average.maximum

    def _reconstruct(self, group: Group) -> None:
        """Reconstruct an image or slab and send it; what fails is sent zero-filled with an error text."""
        if self.header is None:
            self._fail("readouts came without an ISMRMRD header before them")
            self._send_zero_filled(group)
            return
        self._note(f"mri_score reconstructs with {describe(self.settings)}; research use only")
        started = time.perf_counter()
        for found in self._reconstructed(self.header, group):
            if isinstance(found, InputError):
                self._fail(f"{group.title} could not be reconstructed: {found}")
                self._send_zero_filled(group)
                continue
            for note in found.notes:
                self._note(note)
            maps = {"mri_score": found.magnitude} | ({} if found.std is None else {"std": found.std})
            for name, image in maps.items():
                header = imaging(group)[0].header
                self._of(name).send(self.client, image, header, found.place, group.key)
        log.info("%s: %.1f s", group.title, time.perf_counter() - started)

    def _reconstructed(self, header: str, group: Group) -> Iterator[Found | InputError]:
        """The images of a group; a fault of the program becomes an error of that group, not of the scan."""
        try:
            yield from self.reconstruct(header, group, self.settings)
        except Exception as error:
            log.exception("%s", group.title)
            yield InputError(f"a fault of mri_score, {type(error).__name__}: {error}"[:500])

    def _send_zero_filled(self, group: Group) -> None:
        readouts = imaging(group) or group.readouts
        self._of("zero-filled").send(self.client, zero_filled(group, self.columns), readouts[0].header, None, group.key)

    def _of(self, name: str) -> Series:
        """The series of this name: mri_score, std, or zero-filled."""
        if name not in self._series:
            number, role, comment = {
                "mri_score": (1, "Image", f"posterior mean by {self.settings.method}"),
                "std": (2, "Quantitative", "standard deviation of posterior draws"),
                "zero-filled": (3, "Image", "NOT RECONSTRUCTED: zero-filled"),
            }[name]
            history = (self.settings.method,) if number < 3 else ("zero-filled",)
            self._series[name] = Series(number, name, role, history, comment, self.settings.pixels == "float32")
        return self._series[name]

    def _fail(self, text: str) -> None:
        self.failures += 1
        log.error("%s", text)
        self.client.text(f"mri_score error: {text}")

    def _note(self, text: str) -> None:
        """Send a text to the client, unless it was sent before."""
        if text not in self.said:
            self.said.add(text)
            log.info("%s", text)
            self.client.text(f"mri_score: {text}")
