"""The MRD stream: bytes by the table, images with their place, and no silence whatever comes in."""

from __future__ import annotations

import io
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

ismrmrd = pytest.importorskip("ismrmrd", reason="needs the extra mrd")

import mrd  # noqa: E402
import mrd_client as client  # noqa: E402
from asymmetric import BLOBS, ORIENTATIONS, kspace, places  # noqa: E402

from mri_score.errors import InputError  # noqa: E402
from mri_score.readers.geometry import Geometry  # noqa: E402
from mri_score.streaming import wire  # noqa: E402
from mri_score.streaming.collect import Collector  # noqa: E402
from mri_score.streaming.session import Session  # noqa: E402
from mri_score.streaming.settings import StreamSettings, by_name, by_parameters  # noqa: E402

LAST, NOISE, CALIBRATION = 8, 19, 20
QUICK = StreamSettings("exact-draw", "brain-fast", samples=2, steps=3, pixels="float32", threads=1, device="cpu")
SIZE, COILS = 48, 4


def coil_images(seed=0):
    """(slices, coils, rows, cols): a disc with a bright corner, other in each slice, seen by four coils, with noise."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 2, indexing="ij"), -1)
    shape = (np.linalg.norm(grid, axis=-1) < 0.8) * 1.0
    slices = [shape + (np.linalg.norm(grid - at, axis=-1) < 0.2) for at in ((0.3, 0.2), (-0.3, 0.1))]
    corners = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])
    maps = [np.exp(-np.square(grid - at).sum(-1) / 3 + 1j * grid @ at / 2) for at in corners]
    return np.array([[image * one for one in maps] for image in slices]), np.random.default_rng(seed)


def scan(noise=0.01, keep=lambda line: line % 2 == 0 or abs(line - SIZE // 2) < 6, separate=True, slices=2):
    """The header and the `ismrmrd` acquisitions of a scan with noise and calibration lines."""
    images, random = coil_images()
    axes = (-2, -1)
    full = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(images, axes), norm="ortho"), axes)
    white = random.standard_normal((2, *full.shape))
    full = (full + noise * (white[0] + 1j * white[1])).astype(np.complex64)
    only = noise * random.standard_normal((2, COILS, 2 * SIZE))
    readouts = [mrd.Readout(only[0] + 1j * only[1], flags=[NOISE])] * 4
    for number in range(slices):
        fields = {"position": (0.0, 0.0, 4.0 * number), "read_dir": (0.0, 1.0, 0.0), "phase_dir": (1.0, 0.0, 0.0),
                  "slice_dir": (0.0, 0.0, 1.0)}  # fmt: skip
        centre = range(SIZE // 2 - 6, SIZE // 2 + 6)
        more = {"counters": {"slice": number}, "fields": fields}
        lines = [line for line in range(SIZE) if keep(line)]
        readouts += mrd.lines_of(full[number], centre, flags=[CALIBRATION], **more) if separate else []
        readouts += mrd.lines_of(full[number], lines[:-1], **more)
        readouts += mrd.lines_of(full[number], lines[-1:], flags=[LAST], **more)
    xml = mrd.header((SIZE, SIZE, 1), fov=(96.0, 96.0, 4.0), coils=COILS, calibration="separate" if separate else "")
    return xml, readouts


def messages(xml, readouts, config="mri_score"):
    return [client.config_file(config), client.text_message(3, xml), *sent(readouts), client.CLOSE]


def sent(readouts):
    """The messages of readouts, made by `ismrmrd`."""
    for one in readouts:
        made = ismrmrd.Acquisition.from_array(np.asarray(one.samples, np.complex64), one.trajectory)
        made.center_sample, made.sample_time_us, made.measurement_uid = one.samples.shape[1] // 2, 5.0, 77
        made.idx.kspace_encode_step_1 = one.line
        for flag in one.flags:
            made.set_flag(flag)
        for name, value in one.counters.items():
            setattr(made.idx, name, value)
        for name, value in one.fields.items():
            getattr(made, name)[:] = value
        yield client.acquisition(made)


def talk(data, reconstruct=None, settings=QUICK):
    """What a session answers to these bytes; by default nothing can be reconstructed."""
    out = io.BytesIO()
    receive = partial(wire.read_message, io.BytesIO(data))
    Session(receive, wire.WireClient(out), settings, ["brain", "brain-fast"], reconstruct or cannot).run()
    out.seek(0)
    return client.read_answer(out)


def cannot(header, group, settings):
    yield InputError("it holds noise alone")


# Bytes


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (wire.READOUT_HEADER, ismrmrd.AcquisitionHeader),
        (wire.IMAGE_HEADER, ismrmrd.ImageHeader),
        (wire.WAVEFORM_HEADER, ismrmrd.WaveformHeader),
        (np.dtype(wire.COUNTERS), ismrmrd.EncodingCounters),
    ],
)
def test_headers_have_the_bytes_of_the_format(ours, theirs):
    for name, *_ in theirs._fields_:
        place = getattr(theirs, name)
        assert (place.offset, place.size) == (ours.fields[name][1], ours.fields[name][0].itemsize), name


def test_a_readout_is_read_as_ismrmrd_wrote_it():
    random = np.random.default_rng(0)
    samples = (random.standard_normal((3, 7)) + 1j * random.standard_normal((3, 7))).astype(np.complex64)
    made = ismrmrd.Acquisition.from_array(samples, random.standard_normal((7, 2)).astype(np.float32))
    made.idx.set, made.position[:] = 5, (1.0, 2.0, 3.0)
    stream = io.BytesIO(client.waveform() + client.acquisition(made) + client.CLOSE)
    assert wire.read_message(stream).kind == wire.WAVEFORM
    found = wire.read_message(stream)
    np.testing.assert_array_equal(found.samples, samples)
    np.testing.assert_array_equal(found.trajectory, made.traj)
    assert int(found.header["idx"]["set"]) == 5 and found.header["position"].tolist() == [1, 2, 3]
    assert wire.read_message(stream).kind == wire.CLOSE


def heads(*given):
    """Readouts of one sample with these flags and counters."""
    for flags, counters in given:
        header = np.zeros((), wire.READOUT_HEADER)
        header["flags"] = sum(1 << (flag - 1) for flag in flags)
        for name, value in counters.items():
            header["idx"][name] = value
        yield wire.Readout(header[()], np.ones((1, 1), np.complex64), np.zeros((1, 0), np.float32))


def test_an_image_is_complete_with_its_last_readout_and_gets_its_own_calibration():
    collector = Collector(last_average=1)
    given = heads(
        ([NOISE], {}), ([CALIBRATION], {"slice": 1}), ([CALIBRATION, LAST], {"slice": 0}), ([], {"slice": 1}),
        ([LAST], {"slice": 1}), ([LAST], {"slice": 1, "average": 1}), ([], {"slice": 1}), ([], {"slice": 0, "set": 2}),
    )  # fmt: skip
    found = [collector.add(one) for one in given]
    assert [one is not None for one in found] == [False] * 5 + [True, False, False]
    assert found[5].key["slice"] == 1 and len(found[5].readouts) == 1 + 1 + 3
    assert collector.late == 1
    (rest,) = collector.rest()
    assert rest.title == "slice 0, set 2" and len(rest.readouts) == 1 + 1 + 1


def test_the_size_of_a_collector_is_that_of_the_readouts_that_it_keeps():
    collector = Collector()
    for number in range(3):
        for header in heads(([], {"slice": number}), ([LAST], {"slice": number}), ([], {"slice": number}), ([26], {})):
            samples, trajectory = np.ones((2, 5), np.complex64), np.ones((5, 3), np.float32)
            collector.add(wire.Readout(header.header, samples, trajectory))
    assert collector.late == 3 and collector.size == 0  # all images are complete, the rest is dropped
    collector.add(next(heads(([NOISE], {}))))
    assert collector.size == 8


def test_a_slab_waits_for_the_end_of_the_scan():
    collector = Collector(whole=True)
    assert not any(collector.add(one) for one in heads(([LAST], {}), ([LAST], {"kspace_encode_step_2": 1})))
    assert len(next(collector.rest()).readouts) == 2


# Settings


def test_config_names_and_parameters():
    priors = ["brain", "brain-fast"]
    assert by_name(StreamSettings(), "dps+brain-fast", priors)[0] == StreamSettings("dps", "brain-fast")
    grey = StreamSettings(prior="grey", one_channel="magnitude")
    assert by_name(grey, "dps", priors)[0].one_channel == "magnitude"
    assert by_name(grey, "dps+brain-fast", priors)[0].one_channel is None  # the use was that of another prior
    assert by_parameters(grey, '{"one_channel": "parts"}', priors)[0].one_channel == "parts"
    assert by_name(QUICK, "mri_score", priors) == (QUICK, [])
    settings, notes = by_name(QUICK, "invertcontrast", priors)
    assert settings == QUICK and "invertcontrast" in notes[0]
    settings, notes = by_name(QUICK, "../../etc/passwd", priors)
    assert settings == QUICK and notes
    text = '{"version": "1.2", "parameters": {"config": "brain", "samples": "8", "steps": 0, "shim": 1}}'
    settings, notes = by_parameters(QUICK, text, priors)
    assert settings.prior == "brain" and settings.samples == 8 and settings.steps == QUICK.steps
    assert ["steps" in notes[0], "shim" in notes[1]] == [True, True]
    for odd in ("[1]", "{", '{"parameters": 3}', "[" * 100_000, '{"samples": 1e400}', '{"samples": NaN}'):
        assert by_parameters(QUICK, odd, priors)[0] == QUICK


# No silence


BAD = {
    "an unknown message": (struct.pack("<H", 999), "message 999"),
    "a text of 4 GiB": (struct.pack("<HI", 3, 2**32 - 1), "claims 4294967295 bytes"),
    "a readout of 34 GB": (
        struct.pack("<H", 1008) + bytes(ismrmrd.AcquisitionHeader(number_of_samples=65535, active_channels=65535)),
        "a readout of the stream claims",
    ),
    "an image of 2^48 pixels": (
        struct.pack("<H", 1022)
        + bytes(ismrmrd.ImageHeader(data_type=8, channels=9, matrix_size=(65535, 65535, 65535)))
        + bytes(8),
        "an image of the stream claims",
    ),
    "a pixel type of its own": (struct.pack("<H", 1022) + bytes(ismrmrd.ImageHeader(data_type=77)), "pixel type 77"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_stream_gets_one_error_and_a_close(name):
    data, said = BAD[name]
    answer = talk(client.config_file("mri_score") + data + bytes(100))
    assert answer.closed and [said in text for text in answer.texts if "error" in text] == [True]


def test_a_scan_that_cannot_be_reconstructed_is_sent_zero_filled():
    answer = talk(b"".join(messages(*scan(separate=False))))
    assert answer.closed and sum("it holds noise alone" in text for text in answer.texts) == 2
    assert [one.header.slice for one in answer.images] == [0, 1]
    image = answer.images[1]
    assert image.header.image_series_index == 3 and "NOT RECONSTRUCTED" in image.meta["ImageComment"]
    wanted = np.sqrt(np.square(np.abs(coil_images()[0][1])).sum(0))
    assert np.corrcoef(image.values.ravel(), wanted.ravel())[0, 1] > 0.9
    assert image.header.measurement_uid == 77


def test_without_a_header_or_with_a_broken_one_there_is_an_image_too():
    xml, readouts = scan(slices=1)
    start, end = client.config_file("mri_score"), b"".join(sent(readouts)) + client.CLOSE
    answer = talk(start + end)
    assert answer.closed and "without an ISMRMRD header" in answer.texts[0] and len(answer.images) == 1
    from mri_score.streaming.slices import Slices

    answer = talk(start + client.text_message(3, xml[:200]) + end, Slices("brain-fast"))
    assert answer.closed and len(answer.images) == 1 and "error" in answer.texts[0]


def test_a_fault_of_the_program_is_said_and_the_next_slice_goes_on():
    def fault(header, group, settings):
        if group.key["slice"] == 0:
            raise ZeroDivisionError("by zero")
        yield InputError("second")

    answer = talk(b"".join(messages(*scan())), fault)
    assert answer.closed and len(answer.images) == 2
    assert "ZeroDivisionError" in answer.texts[1] and "second" in answer.texts[2]


IMPOSSIBLE = {
    "a line outside of the matrix": mrd.Readout(np.ones((COILS, SIZE)), 65535, flags=[LAST]),
    "no samples": mrd.Readout(np.ones((COILS, 0)), flags=[LAST]),
    "a readout of 60000 samples": mrd.Readout(np.ones((1, 60000)), 65535, flags=[LAST]),
}


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_readouts_get_a_text_and_an_image(name, known):
    header = [client.text_message(3, scan()[0])] if known else []
    answer = talk(b"".join([client.config_file("mri_score"), *header, *sent([IMPOSSIBLE[name]]), client.CLOSE]))
    assert answer.closed and len(answer.images) == 1 and not answer.images[0].pixels.any()
    assert sum("error" in text for text in answer.texts) == 1


def test_nothing_to_reconstruct_is_said():
    xml, readouts = scan()
    answer = talk(b"".join(messages(xml, readouts[:4])))
    assert answer.closed and any("no readout of an image" in text for text in answer.texts) and not answer.images
    answer = talk(b"")
    assert not answer.texts and not answer.closed, "who says nothing hears nothing"


def test_a_config_of_another_program_is_said_and_left_out():
    xml = '<?xml version="1.0"?><gadgetronStreamConfiguration/>'
    answer = talk(client.text_message(2, xml) + client.text_message(5, "a line of a log") + client.CLOSE)
    assert any("another program" in text for text in answer.texts) and answer.closed


# Images


def test_pixels_times_their_slope_are_right_in_every_image():
    from mri_score.streaming.images import Series

    stream, series = io.BytesIO(), Series(1, "mri_score", "Image", (), "")
    readout, random = np.zeros((), wire.READOUT_HEADER)[()], np.random.default_rng(0)
    given = [factor * random.random((5, 7)) for factor in (1e-7, 1.5e-7, 9e-7, 0.0)]
    place = Geometry.centred((5, 7), (2.0, 3.0, 4.0), (1.0, 2.0, 3.0))
    for image in given:
        series.send(wire.WireClient(stream), image, readout, place, {"slice": 4})
    stream.seek(0)
    found = client.read_answer(stream).images
    for image, wanted in zip(found, given, strict=True):
        assert image.pixels.dtype == np.int16 and image.pixels.max() <= 4095
        np.testing.assert_allclose(image.values, wanted, atol=0.501 * float(image.meta["RescaleSlope"]))
    assert found[0].meta["RescaleSlope"] == found[1].meta["RescaleSlope"] and found[0].pixels.max() == 2048
    head = found[0].header
    assert list(head.matrix_size) == [5, 7, 1] and list(head.field_of_view) == [10, 21, 4]
    assert list(head.position) == [1, 2, 3] and (head.image_index, found[1].header.image_index) == (1, 2)
    assert head.slice == 4 and head.image_series_index == 1


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_an_object_without_symmetry_comes_back_where_it_was(orientation):
    """The brightest ball is found at its place in the patient, from the image's header alone."""
    from mri_score.streaming.slices import Slices

    stack = places(ORIENTATIONS[orientation])
    centre = np.array(max(BLOBS, key=BLOBS.get))
    number = min(range(len(stack)), key=lambda k: abs(np.dot(centre - stack[k].centre, stack[k].slice_direction)))
    place = stack[number]
    rows, cols = place.matrix
    fields = {"position": place.centre, "read_dir": place.row_direction, "phase_dir": place.column_direction,
              "slice_dir": place.slice_direction}  # fmt: skip
    random = np.random.default_rng(0)
    noise = 0.01 * random.standard_normal((2, 1, rows, cols))
    y = kspace(place)[None] + noise[0] + 1j * noise[1]
    xml = mrd.header((rows, cols, 1), fov=place.field_of_view, coils=1)
    readouts = mrd.lines_of(y, counters={"slice": number}, fields=fields)
    image = talk(b"".join(messages(xml, readouts)), Slices("brain-fast")).series(1)[0]
    x, line = np.unravel_index(image.values.argmax(), image.values.shape)
    head, size = image.header, np.divide(image.header.field_of_view, image.header.matrix_size)
    at = np.array(head.position) + (x - rows // 2) * size[0] * np.array(head.read_dir)
    at += (line - cols // 2) * size[1] * np.array(head.phase_dir)
    np.testing.assert_allclose(at, centre, atol=1e-3)


def test_a_streamed_slice_is_the_image_of_the_file(tmp_path):
    """The same readouts in a file, through the same settings, are the same image."""
    from mri_score.data.scan import Scan
    from mri_score.priors.store import find_prior, load_prior
    from mri_score.readers import open_scan
    from mri_score.reconstruction import sample_posterior
    from mri_score.streaming.slices import Slices

    xml, readouts = scan(slices=1)
    answer = talk(b"".join(messages(xml, readouts)), Slices("brain-fast"))
    file = Scan(open_scan(mrd.write_mrd(tmp_path / "stream.h5", xml, readouts)))
    prior = load_prior(find_prior("brain-fast"))
    found = sample_posterior(file.acquisition(0), prior, "exact-draw", slices=[0], steps=3, samples=2, device="cpu")
    image, std = (answer.series(number)[0] for number in (1, 2))
    np.testing.assert_allclose(image.values, found.rss[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(std.values, (found.std * found.weight)[0], rtol=1e-3, atol=1e-5)
    assert std.meta["DataRole"] == "Quantitative" and "separate" not in " ".join(answer.texts)


@pytest.mark.parametrize("name", ["brain_t2_4ch", "brain_flash_16ch", "phantom_oversampled_2ch"])
def test_real_scans_are_the_same_through_the_stream(name):
    """K-space, mask and geometry of a slice, as readouts and as a file."""
    from mri_score.readers import open_scan
    from mri_score.readers.received import Received, open_received

    path = Path(__file__).resolve().parents[2] / "shared" / "data" / "kspace" / f"{name}.h5"
    if not path.exists():
        pytest.skip("the real scans are not part of the repository")
    file = open_scan(path)
    y, mask = file.stored(0)
    lines = mask.any(0).nonzero()[0].tolist()
    data = io.BytesIO(b"".join(sent(mrd.lines_of(y, lines))))
    readouts = [wire.read_message(data) for _ in lines]
    headers = np.array([one.header for one in readouts])
    xml = file.header_xml.decode() if isinstance(file.header_xml, bytes) else file.header_xml
    parts = [one.samples for one in readouts], [one.trajectory for one in readouts]
    found = open_received(Received(xml, headers, *parts))
    np.testing.assert_allclose(found.kspace(0), file.kspace(0), atol=1e-5 * float(file.kspace(0).abs().max()))
    assert (found.mask is None) == (file.mask is None) and found.crop == file.crop
    assert found.geometry(0).voxel_size == pytest.approx(file.geometry(0).voxel_size)


def test_spokes_are_reconstructed_along_their_trajectory():
    """Radial readouts of a scan, without noise and calibration lines, give its image."""
    from mri_score.data.noncartesian import samples
    from mri_score.data.trajectories import radial
    from mri_score.streaming.slices import Slices

    images, _ = coil_images()
    along = radial((SIZE, SIZE), 1.0)
    y = samples(torch.from_numpy(images[:1].astype(np.complex64)), along)[0].numpy()
    count = len(along.coordinates) // SIZE
    spokes = np.split(np.arange(count * SIZE), count)
    readouts = [mrd.Readout(y[:, one], trajectory=along.coordinates.numpy()[one].astype(np.float32)) for one in spokes]
    xml = mrd.header((SIZE, SIZE, 1), coils=COILS, trajectory="radial")
    answer = talk(b"".join(messages(xml, readouts)), Slices("brain-fast"))
    image, wanted = answer.series(1)[0].values, np.sqrt(np.square(np.abs(images[0])).sum(0))
    assert np.corrcoef(image.ravel(), wanted.ravel())[0, 1] > 0.97, answer.texts


def test_damaged_streams_end_in_texts_and_images():
    """Bytes changed at random places: whatever comes of it, the client hears of it, and nothing else is raised."""
    from mri_score.data.scan import Scan
    from mri_score.readers.received import Received, open_received

    def read(header, group, settings):
        headers = np.array([one.header for one in group.readouts])
        parts = [one.samples for one in group.readouts], [one.trajectory for one in group.readouts]
        try:
            scan = Scan(open_received(Received(header, headers, *parts)))
            scan.kspace(0)
            scan.file.geometry(0)
            yield InputError("read, and not reconstructed here")
        except InputError as error:
            yield error

    random, data = np.random.default_rng(0), b"".join(messages(*scan(slices=1)))
    headers = data.find(b"<?xml") + 2500
    for number in range(60):
        changed = bytearray(data)
        for place in random.integers(0, headers if number % 2 else len(data), 8):
            changed[place] = random.integers(256)
        answer = talk(bytes(changed), read)
        assert answer.closed or not answer.images
        assert not any("fault of mri_score" in text for text in answer.texts), answer.texts


# The server


def test_nothing_slow_is_imported_before_the_server_listens():
    code = "import sys, mri_score.cli.serve, mri_score.streaming.server; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "sigpy", "scipy", "h5py", "matplotlib"} & set(loaded)


@pytest.fixture(scope="module")
def server():
    """A running server: its process and port."""
    options = ["--port", "0", "--prior", "brain-fast", "--method", "exact-draw", "--steps", "2", "--samples", "2"]
    command = [sys.executable, "-m", "mri_score", "serve", *options, "--threads", "1", "--pixels", "float32"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        yield process, client.listening_port(process)
    finally:
        process.terminate()
        assert process.wait(30) == 0
        process.stdout.close()


def children(process):
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        return file.read().split()


def gone(process):
    """Wait until no process of a connection is left."""
    for _ in range(200):
        if not children(process):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_a_server_survives_its_clients_and_serves_several_at_once(server):
    process, port = server
    whole = messages(*scan())
    counts = (0, 1, 2, 6, len(whole) // 2, len(whole) - 1, len(whole))  # clients that die after so many messages
    for start in (client.config_file("mri_score")[:100], *(b"".join(whole[:count]) for count in counts)):
        with socket.create_connection(("127.0.0.1", port)) as rude:
            rude.sendall(start)
    scans = [messages(*scan(), config=name) for name in ("mri_score", "nothing_known", "exact-draw+brain-fast")]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda one: client.exchange(port, *one), scans))
    for answer in answers:
        assert answer.closed and [len(answer.series(number)) for number in (1, 2, 3)] == [2, 2, 0]
        np.testing.assert_array_equal(answer.series(1)[1].pixels, answers[0].series(1)[1].pixels)
    assert [sum("is unknown" in text for text in answer.texts) for answer in answers] == [0, 1, 0]
    assert gone(process)


@pytest.mark.slow
def test_images_come_back_while_the_scan_goes_on(server):
    _, port = server
    xml, readouts = scan()
    first = [one for one in readouts if one.counters.get("slice", 0) == 0]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"".join(messages(xml, first)[:-1]))
        stream = connection.makefile("rb")
        kinds = []
        while kinds.count(1022) < 2:
            (kind,) = struct.unpack("<H", stream.read(2))
            kinds.append(kind)
            if kind == 5:
                stream.read(struct.unpack("<I", stream.read(4))[0])
            else:
                header = ismrmrd.ImageHeader.from_buffer_copy(stream.read(198))
                stream.read(8 + header.attribute_string_len + 4 * SIZE * SIZE)
        connection.sendall(client.CLOSE)
        assert stream.read(2) == struct.pack("<H", 4)


@pytest.mark.slow
def test_the_order_of_the_client_of_python_ismrmrd_server(server, tmp_path):
    """Its order of messages: config name, header and parameters as in the file, waveforms, readouts, CLOSE, in small
    pieces by `ismrmrd`; another thread receives at the same time, and stores images in an ISMRMRD dataset.
    """
    _, port = server
    xml, readouts = scan()
    path = mrd.write_mrd(tmp_path / "in.h5", xml, readouts)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection, ThreadPoolExecutor(1) as pool:

        def receive():
            with ismrmrd.Dataset(str(tmp_path / "out.h5"), "dataset") as out:
                while (kind := struct.unpack("<H", read(2))[0]) != 4:
                    if kind == 5:
                        texts.append(read(*struct.unpack("<I", read(4))))
                        continue
                    image = ismrmrd.Image.deserialize_from(read)
                    image.attribute_string = ismrmrd.Meta.deserialize(image.attribute_string).serialize()
                    out.append_image(f"images_{image.image_series_index}", image)

        def read(count):
            return connection.recv(count, socket.MSG_WAITALL)

        texts, received = [], pool.submit(receive)
        with ismrmrd.Dataset(str(path), "dataset", create_if_needed=False) as given:
            connection.send(client.config_file("mri_score"))
            connection.send(client.text_message(3, given.read_xml_header().decode()))
            connection.send(client.text_message(5, '{"version": "1.1.0", "parameters": {"seed": 3, "shim": "x"}}'))
            connection.send(client.waveform())
            for number in range(given.number_of_acquisitions()):
                connection.send(struct.pack("<H", 1008))
                given.read_acquisition(number).serialize_into(connection.send)
        connection.send(client.CLOSE)
        received.result(120)
    assert any(b"shim" in text for text in texts)
    start, rest = messages(xml, readouts)[:2], messages(xml, readouts)[2:]
    same = client.exchange(port, *start, client.text_message(5, '{"seed": 3}'), *rest)
    with ismrmrd.Dataset(str(tmp_path / "out.h5"), "dataset", create_if_needed=False) as out:
        for series in (1, 2):
            assert out.number_of_images(f"images_{series}") == 2
            for number, one in enumerate(same.series(series)):
                np.testing.assert_array_equal(out.read_image(f"images_{series}", number).data, one.pixels)


@pytest.mark.slow
def test_the_memory_of_the_server_stays_flat_over_twenty_scans(server):
    process, port = server

    def resident():
        with open(f"/proc/{process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    one = messages(*scan(slices=1))
    client.exchange(port, *one)
    before = resident()
    for _ in range(20):
        assert len(client.exchange(port, *one).series(1)) == 1
    assert resident() - before < 2 << 20 and gone(process)
    assert len(os.listdir(f"/proc/{process.pid}/fd")) < 40


@pytest.mark.slow
def test_sigterm_ends_the_server_and_tells_its_clients():
    command = [sys.executable, "-m", "mri_score", "serve", "--port", "0", "--prior", "brain-fast", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        port = client.listening_port(process)
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(client.config_file("unknown") + client.text_message(3, scan()[0]))
            stream = connection.makefile("rb")
            assert stream.read(2) == struct.pack("<H", 5)  # the server is at work
            threading.Timer(0.1, process.send_signal, [signal.SIGTERM]).start()
            rest = stream.read()
        assert b"the server was stopped" in rest and rest.endswith(struct.pack("<H", 4))
        assert process.wait(20) == 0


def test_a_port_that_is_taken_is_one_error():
    from command import refused

    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refused("serve", "--port", taken.getsockname()[1])
    assert "cannot listen" in said and "--port" in said
    assert "known names" in refused("serve", "--port", "0", "--method", "magic")


@pytest.mark.slow
def test_one_scan_through_standard_input_and_output(tmp_path):
    command = [sys.executable, "-m", "mri_score", "stream", "--prior", "brain-fast", "--method", "exact-draw"]
    command += ["--steps", "2", "--samples", "2", "--threads", "1"]
    data = b"".join(messages(*scan(slices=1)))
    done = subprocess.run(command, input=data, capture_output=True, timeout=120)
    answer = client.read_answer(io.BytesIO(done.stdout))
    assert done.returncode == 0 and answer.closed and len(answer.series(1)) == len(answer.series(2)) == 1


COMPARE = """
import io, sys
import mrd, numpy

def images(path):
    with open(path, "rb") as file, mrd.BinaryMrdReader(file) as reader:
        return reader.read_header(), [item.value for item in reader.read_data()]

(given, _), (ours, found), (_, wanted) = map(images, sys.argv[1:])
assert given == ours
first = [one for one in found if one.head.image_series_index == 1]
assert len(first) == len(wanted) == len(found) / 2
image = first[0].data[0, 0] * float(first[0].meta["RescaleSlope"][0].value)
assert list(first[0].head.field_of_view) == list(wanted[0].head.field_of_view)
print(numpy.corrcoef(image.ravel(), wanted[0].data[0, 0].ravel())[0, 1])
"""
"""The images of two streams of version 2: equal headers, and the correlation of the first images."""


@pytest.mark.slow
def test_a_stream_of_version_2_through_standard_input_and_output(tmp_path):
    """The phantom of the package mrd-python, against its own reconstruction of the full scan."""

    def run(module, *options, given=None):
        return subprocess.run(
            [sys.executable, "-m", module, *options], input=given, capture_output=True, timeout=200, cwd=tmp_path
        )

    made = run("mrd.tools.phantom", "--matrix", "48", "--coils", "4", "--oversampling", "1").stdout
    if not made:
        pytest.skip("needs mrd-python, of the extra mrd")
    quick = ["--prior", "brain-fast", "--method", "exact-draw", "--steps", "8", "--samples", "2", "--threads", "1"]
    ours = run("mri_score", "stream", *quick, given=made)
    assert ours.returncode == 0, ours.stderr
    files = {"given": made, "ours": ours.stdout, "theirs": run("mrd.tools.stream_recon", given=made).stdout}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    said = subprocess.run([sys.executable, "-c", COMPARE, *files], capture_output=True, text=True, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert float(said.stdout) > 0.98
    broken = run("mri_score", "stream", *quick, given=made[: len(made) // 2])
    assert broken.returncode == 1 and b"cut off" in broken.stderr and b"Traceback" not in broken.stderr
