"""fastMRI files: what is read is what was written, noise keeps its size, and no strange file gets through."""

from __future__ import annotations

import os
import pickle
import re
import struct
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from mri_score.errors import InputError
from mri_score.numerics.fourier import fft, ifft, resize_image
from mri_score.readers import scan_files
from mri_score.readers.fastmri import FastMRI, write_fastmri
from mri_score.readers.hdf5 import StoredDataset
from mri_score.readers.ismrmrd_header import LARGEST_HEADER, build_header, parse_header


def white(*shape: int, seed: int = 0) -> torch.Tensor:
    """Complex noise with standard deviation 1 in each real component."""
    return torch.view_as_complex(torch.randn(*shape, 2, generator=torch.Generator().manual_seed(seed)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scan.h5"


# ---- What is read is what was written.


def test_a_volume_comes_back(path):
    kspace, rss = white(3, 4, 12, 9), torch.rand(3, 11, 7)
    write_fastmri(path, kspace, rss=rss, acquisition="AXT2", attributes={"max": "2.5"})
    file = FastMRI(path)
    assert (file.name, file.slices, file.coils, file.rows, file.cols) == ("scan", 3, 4, 12, 9)
    assert (file.acquisition, file.max, file.has_target) == ("AXT2", 2.5, True)
    assert file.norm == pytest.approx(rss.norm().item(), rel=1e-6)
    assert torch.equal(file.target(2), rss[2])
    expected = fft(resize_image(ifft(kspace[1], axes=(-2,)), (11, 9)), axes=(-2,))
    torch.testing.assert_close(file.kspace(1), expected)
    assert file.mask is None and file.padding == (0, 9) and file.notes == [] and file.crop == (11, 7)
    assert file.sampled.shape == (1, 1, 1, 9) and file.sampled.all()


@pytest.mark.parametrize("undersampled", [False, True])
def test_what_a_file_holds_is_told_without_torch(path, undersampled):
    mask = np.arange(9) % 3 != 0
    write_fastmri(path, white(2, 3, 12, 9) * torch.from_numpy(mask if undersampled else mask | True), recon=(6, 9))
    code = (
        "import sys; from mri_score.readers.fastmri import FastMRI;"
        "file = FastMRI(sys.argv[1]); print(file.full, file.crop, file.about()); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for words in (str(not undersampled), "(6, 9)", "2 slices, 3 coils, 12 rows x 9 columns", "readout 12 -> 6"):
        assert words in done.stdout


def test_a_single_coil_is_one_coil_and_prefers_its_own_target(path):
    kspace = white(2, 8, 6)
    write_fastmri(path, kspace, rss=torch.ones(2, 8, 6))
    with h5py.File(path, "a") as file:
        file["reconstruction_esc"] = np.full((2, 8, 6), 3.0)
    file = FastMRI(path)
    assert file.coils == 1
    assert torch.equal(file.kspace(1), kspace[1:])
    assert (file.target(0) == 3).all()


def test_files_without_header_attributes_and_target_are_read_as_they_are(path):
    kspace = white(1, 2, 10, 7)
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace.numpy().astype(np.complex128)
        file.attrs["norm"] = "no number"
    file = FastMRI(path)
    assert file.encoded is None and file.recon is None and file.target(0) is None
    assert file.max is None and file.norm is None and file.acquisition == "unknown"
    assert file.crop == (10, 7) and not file.oversampled
    assert file.kspace(0).dtype == torch.complex64 and torch.equal(file.kspace(0), kspace[0])


def test_one_read_touches_one_slice(path, monkeypatch):
    write_fastmri(path, white(5, 2, 6, 6))
    file, asked = FastMRI(path), []
    read = StoredDataset.__getitem__
    monkeypatch.setattr(StoredDataset, "__getitem__", lambda self, key: asked.append(key) or read(self, key))
    file.kspace(4)
    file.kspace(0)
    slices, samplings = ([key for key in asked if isinstance(key, kind)] for kind in (int, tuple))
    assert sorted(slices) == [0, 2, 4]  # the middle one once for the sampling, with one coil of each of the others
    assert sorted(samplings) == [(0, 0), (1, 0), (3, 0), (4, 0)]


def test_a_folder_of_mixed_sizes(tmp_path):
    for name, shape in {"b.h5": (1, 3, 8, 6), "a.h5": (2, 2, 7, 9)}.items():
        write_fastmri(tmp_path / name, white(*shape))
    (tmp_path / "._a.h5").write_bytes(b"resource fork")
    files = scan_files(tmp_path)
    assert [file.name for file in files] == ["a.h5", "b.h5"]
    assert [tuple(FastMRI(file).kspace(0).shape) for file in files] == [(2, 7, 9), (3, 8, 6)]
    assert scan_files(files[0]) == files[:1]
    (tmp_path / "empty").mkdir()
    for bad in ("empty", "absent"):
        with pytest.raises(InputError, match=bad):
            scan_files(tmp_path / bad)


# ---- Readout oversampling.


@pytest.mark.parametrize(("rows", "recon"), [(64, 32), (64, 31), (63, 32), (63, 31)])
def test_removing_oversampling_keeps_white_noise_white(path, rows, recon):
    """The variance of every sample is that of before, within 4 standard errors of 2 * 4000 normal numbers."""
    write_fastmri(path, white(4, 20, rows, 50, seed=rows + recon), recon=(recon, 50))
    file = FastMRI(path)
    y = torch.stack([file.kspace(index) for index in range(4)])
    assert y.shape == (4, 20, recon, 50) and file.oversampled
    variance = torch.view_as_real(y).square().mean((0, 1, 3, 4))
    assert (variance - 1).abs().max() < 4 * (2 / 8000) ** 0.5
    neighbours = (y[:, :, 1:].conj() * y[:, :, :-1]).mean((0, 1, 3)).abs()
    assert neighbours.max() < 4 * 2 / 4000**0.5


@pytest.mark.parametrize(("rows", "recon"), [(20, 10), (21, 10), (20, 9)])
def test_removing_oversampling_keeps_image_values(path, rows, recon):
    image = white(1, 2, rows, 12)
    write_fastmri(path, fft(image), recon=(recon, 12))
    start = (rows - recon) // 2
    torch.testing.assert_close(ifft(FastMRI(path).kspace(0)), image[0, :, start : start + recon])


def test_rows_that_are_phase_encodes_are_not_cropped(path):
    mask = torch.rand(24, 10, generator=torch.Generator().manual_seed(1)) < 0.5
    kspace = white(1, 2, 24, 10) * mask
    write_fastmri(path, kspace, mask=mask, recon=(12, 10))
    file = FastMRI(path)
    assert torch.equal(file.mask, mask) and not file.oversampled
    assert torch.equal(file.kspace(0), kspace[0]) and file.crop == (12, 10)
    assert file.sampled.shape == (1, 1, 24, 10)


@pytest.mark.parametrize(
    ("shape", "recon", "crop"),
    [
        ((640, 368), (320, 320), (320, 320)),
        ((640, 203), (320, 320), (320, 203)),
        ((64, 60), (80, 50), (64, 50)),
        ((96, 60), (80, 90), (80, 60)),
    ],
)
def test_no_acquired_row_or_column_inside_the_recon_matrix_is_cut(path, shape, recon, crop):
    write_fastmri(path, white(1, 1, *shape), recon=recon)
    assert FastMRI(path).crop == crop


# ---- Padding and masks: the samples decide.


def padded(left: int, right: int, cols: int = 20) -> torch.Tensor:
    kspace = white(1, 2, 8, cols)
    kspace[..., :left] = kspace[..., right:] = 0
    return kspace


@pytest.mark.parametrize("padding", [(0, 20), (3, 18), (0, 17), (4, 20)])
def test_padding_is_read_from_the_header_and_agrees_with_the_samples(path, padding):
    write_fastmri(path, padded(*padding), padding=padding)
    file = FastMRI(path)
    assert parse_header(build_header((8, 20), (8, 20), padding, 2), "test").padding == padding
    assert file.padding == padding and file.mask is None and file.notes == []
    assert torch.equal(file.sampled[0, 0, 0].nonzero().flatten(), torch.arange(*padding))


def test_where_header_and_samples_disagree_the_samples_win(path):
    write_fastmri(path, padded(2, 19), padding=(5, 17))
    file = FastMRI(path)
    assert file.padding == (2, 19) and "columns 5 to 17" in file.notes[0]
    assert torch.equal(file.kspace(0), padded(2, 19)[0])


def test_an_undersampled_file_without_mask_shows_its_columns(path):
    columns = torch.rand(20, generator=torch.Generator().manual_seed(3)) < 0.4
    columns[[0, 1, 19]] = False
    columns[9:12] = True
    write_fastmri(path, white(1, 2, 8, 20) * columns, padding=(1, 20))
    file = FastMRI(path)
    assert torch.equal(file.mask, columns) and file.padding == (1, 20)
    assert "columns of zeros" in file.notes[0]


def test_an_undersampled_file_without_mask_shows_its_points(path):
    points = torch.rand(31, 20, generator=torch.Generator().manual_seed(3)) < 0.4
    write_fastmri(path, white(1, 2, 31, 20) * points, recon=(16, 20))
    file = FastMRI(path)
    assert torch.equal(file.mask, points) and file.kspace(0).shape == (2, 31, 20)
    assert "points of zeros" in file.notes[0]


def test_a_few_exact_zeros_are_no_mask(path):
    kspace = white(1, 2, 30, 20)
    kspace[0, :, 3, 4] = kspace[0, 0, :, 5] = 0
    write_fastmri(path, kspace)
    assert FastMRI(path).mask is None


@pytest.mark.parametrize("shape", [(20,), (1, 1, 20, 1), (8, 20)])
def test_a_stored_mask_is_honoured(path, shape):
    columns = torch.arange(20) % 3 == 0
    write_fastmri(path, white(1, 2, 8, 20))
    with h5py.File(path, "a") as file:
        stored = columns.expand(8, 20) if shape == (8, 20) else columns.reshape(shape)
        file["mask"] = stored.numpy().astype(np.float32)
    file = FastMRI(path)
    assert torch.equal(file.mask, columns)
    assert torch.equal(file.kspace(0), white(1, 2, 8, 20)[0] * columns)
    assert "set to zero" in file.notes[0]


def test_a_mask_does_not_sample_padding(path):
    mask = torch.ones(20, dtype=torch.bool)
    write_fastmri(path, padded(3, 18), mask=mask, padding=(3, 18))
    file = FastMRI(path)
    assert file.mask is None and torch.equal(file.sampled.flatten().nonzero().flatten(), torch.arange(3, 18))
    assert file.padding == (3, 18) and file.notes == []


# ---- Processes.


def test_a_file_pickles_and_every_process_has_its_own_handle(path, monkeypatch):
    kspace = white(2, 2, 6, 5)
    write_fastmri(path, kspace)
    file = FastMRI(path)
    assert file._handle is None
    file.kspace(0)
    here = file._handle
    copy = pickle.loads(pickle.dumps(file))
    assert copy._handle is None and torch.equal(copy.kspace(1), kspace[1])
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as after a fork
    assert torch.equal(file.kspace(1), kspace[1]) and file._handle is not here
    file.close()
    assert file._handle is None and torch.equal(file.kspace(0), kspace[0])


def test_a_data_loader_reads_with_workers(path):
    kspace = white(6, 2, 6, 5)
    write_fastmri(path, kspace)
    file = FastMRI(path)
    file.kspace(0)
    loader = torch.utils.data.DataLoader(_Slices(file), batch_size=2, num_workers=2)
    assert torch.equal(torch.cat(list(loader)), kspace)


class _Slices(torch.utils.data.Dataset):
    def __init__(self, file: FastMRI) -> None:
        self.file = file

    def __len__(self) -> int:
        return self.file.slices

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.file.kspace(index)


# ---- Bad samples and bad files.


@pytest.mark.parametrize(
    ("value", "message"), [(complex("nan"), "NaN"), (complex(0, float("inf")), "infinity"), (0, "all zeros")]
)
def test_bad_samples_name_slice_and_coil(path, value, message):
    kspace = white(3, 4, 6, 5)
    kspace[2, 3] = value
    write_fastmri(path, kspace)
    file = FastMRI(path)
    file.kspace(1)
    with pytest.raises(InputError, match=rf"scan\.h5.*slice 2, coil 3.*{message}"):
        file.kspace(2)
    with pytest.raises(InputError, match="slices 0 to 2, not 3"):
        file.kspace(3)


def refused(path, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        FastMRI(path)
    assert str(path) in str(error.value)


def replaced(path, key: str, value, **options) -> None:
    with h5py.File(path, "a") as file:
        if key in file:
            del file[key]
        file.create_dataset(key, data=value, **options)


def test_files_that_are_not_hdf5(path):
    refused(path, "is not a file")
    path.write_bytes(b"DICM" * 400)
    refused(path, "not an HDF5 file")


def test_truncated_and_damaged_files(path):
    write_fastmri(path, white(2, 2, 20, 20), rss=torch.rand(2, 20, 20))
    whole = path.read_bytes()
    for length in range(600, len(whole), 2000):
        path.write_bytes(whole[:length])
        refused(path, "truncated or damaged")
    random = np.random.default_rng(0)
    for _ in range(60):
        bytes_ = bytearray(whole)
        for place in random.integers(0, 4096, 20):
            bytes_[place] = random.integers(256)
        path.write_bytes(bytes_)
        try:
            file = FastMRI(path)
            file.kspace(0), file.target(0)
        except InputError as error:
            assert str(path) in str(error)


def test_wrong_keys_are_told_the_keys_there_are(path):
    with h5py.File(path, "w") as file:
        file["ksp"], file["maps"] = 1, 2
    refused(path, "no dataset kspace; it holds: ksp, maps")
    with h5py.File(path, "a") as file:
        file.create_group("kspace")
    refused(path, "kspace is a group")


@pytest.mark.parametrize("key", ["kspace", "reconstruction_rss", "mask", "ismrmrd_header"])
@pytest.mark.parametrize("kind", ["soft", "external link", "external storage", "virtual", "dangling"])
def test_data_outside_the_file_is_refused(path, tmp_path, key, kind):
    write_fastmri(path, white(1, 2, 6, 5), rss=torch.rand(1, 6, 5), mask=torch.ones(5))
    secret = tmp_path / "secret.h5"
    with h5py.File(path, "a") as file, h5py.File(secret, "w") as other:
        data = file[key][()]
        other["data"], file["elsewhere"] = data, data
        shape, dtype = file[key].shape, file[key].dtype
        del file[key]
        if kind == "soft":
            file[key] = h5py.SoftLink("/elsewhere")
        elif kind == "external link":
            file[key] = h5py.ExternalLink(secret, "/data")
        elif kind == "dangling":
            file[key] = h5py.ExternalLink(tmp_path / "absent.h5", "/data")
        elif key == "ismrmrd_header":
            pytest.skip("texts of variable length cannot lie outside")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape, dtype)
            layout[:] = h5py.VirtualSource(secret, "data", shape, dtype)
            file.create_virtual_dataset(key, layout)
        else:
            file.create_dataset(key, shape, dtype, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    refused(path, f"{key} is a link|the data of {key} are stored in other files")


@pytest.mark.parametrize("chunks", [None, (1, 1, 64, 64)])
@pytest.mark.parametrize("key", ["kspace", "reconstruction_rss"])
def test_size_bombs_are_refused_before_they_are_read(path, key, chunks):
    write_fastmri(path, white(1, 2, 6, 5))
    with h5py.File(path, "a") as file:
        if key in file:
            del file[key]
        file.create_dataset(key, (100000, 64, 4096, 4096), np.complex64, chunks=chunks)
    assert path.stat().st_size < 1 << 20
    refused(path, "declares .* bytes")


def test_a_forged_size_is_refused(path):
    """The shape and the stored size are both forged, so that they agree; the file is no longer than before."""
    write_fastmri(path, white(3, 7, 11, 13))
    data = path.read_bytes()
    for numbers, forged in [((3, 7, 11, 13), (3 << 20, 7, 11, 13)), ((24024,), (24024 << 20,))]:
        now = struct.pack(f"<{len(numbers)}Q", *numbers)
        assert now in data
        data = data.replace(now, struct.pack(f"<{len(forged)}Q", *forged))
    path.write_bytes(data)
    refused(path, "declares 25191006208 bytes|truncated or damaged")  # HDF5 2.0 sees it before we do


def test_slices_and_chunks_have_a_largest_size(path, monkeypatch):
    write_fastmri(path, white(2, 2, 40, 40))
    monkeypatch.setattr("mri_score.readers.hdf5.LARGEST_READ", 30_000)
    FastMRI(path)  # 25,600 bytes a slice
    replaced(path, "kspace", white(2, 2, 40, 40).numpy(), chunks=(2, 2, 40, 40))
    refused(path, "at most 30000")


def test_compressed_files_are_read(path):
    kspace = white(2, 2, 64, 40)
    kspace[..., ::2] = 0
    write_fastmri(path, kspace)
    replaced(path, "kspace", kspace.numpy(), chunks=(1, 1, 64, 40), compression="gzip")
    assert torch.equal(FastMRI(path).kspace(1), kspace[1])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("kspace", np.ones((1, 2, 6, 5), np.float32), "float32, not complex"),
        ("kspace", np.ones((6, 5), np.complex64), r"shape \(6, 5\)"),
        ("kspace", np.ones((1, 1, 2, 6, 5), np.complex64), "slices, coils, rows, cols"),
        ("kspace", np.ones((0, 2, 6, 5), np.complex64), r"shape \(0, 2, 6, 5\)"),
        ("mask", np.ones(6), r"mask is .* \(6,\) .*\(6, 5\)"),
        ("mask", np.zeros(5), "mask is zero everywhere"),
        ("reconstruction_rss", np.ones((2, 6, 5)), r"needs \(1, rows, cols\)"),
        ("ismrmrd_header", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "DOCTYPE"),
        ("ismrmrd_header", "<!doctype a><a/>", "DOCTYPE"),
        ("ismrmrd_header", np.void("<!DOCTYPE a><a/>".encode("utf-16")), "DOCTYPE"),
    ],
)
def test_wrong_contents_are_named(path, key, value, message):
    write_fastmri(path, white(1, 2, 6, 5))
    replaced(path, key, value)
    refused(path, message)


UMLAUT = "<a>Sch\u00e4del</a><encoding>"
HEADER = build_header((12, 9), (6, 9), (1, 8), 2).decode()


def _with(old: str, new: str) -> str:
    assert old in HEADER
    return HEADER.replace(old, new)


@pytest.mark.parametrize(
    "value",
    {
        "utf-8": HEADER,
        "bytes": np.void(HEADER.encode()),
        "characters": np.frombuffer(HEADER.encode(), np.uint8),
        "one element": np.array([HEADER.encode()]),
        "Latin-1": np.bytes_(_with("utf-8", "ISO-8859-1").replace("<encoding>", UMLAUT).encode("latin-1")),
        "Latin-1, undeclared": np.bytes_(_with("<encoding>", UMLAUT).encode("latin-1")),
        "utf-16": np.void(_with("utf-8", "utf-16").encode("utf-16")),
        "blanks": np.bytes_(b"\n  " + HEADER.encode() + b"\n\0"),
        "byte order mark": np.bytes_(HEADER.encode("utf-8-sig")),
        "decimals": _with("<x>12</x><y>9</y>", "<x>12.0</x><y> 9.00 </y>").replace("<maximum>6", "<maximum>6.0"),
        "other name space": _with('xmlns="http://www.ismrm.org/ISMRMRD"', 'xmlns="urn:another"'),
        "no name space": _with(' xmlns="http://www.ismrm.org/ISMRMRD"', ""),
    }.items(),
    ids=lambda one: one[0],
)  # fmt: skip
def test_headers_of_other_converters_are_read(path, value):
    kspace = padded(1, 8, 9)[:, :, :6].repeat(1, 1, 2, 1)
    write_fastmri(path, kspace)
    replaced(path, "ismrmrd_header", value[1])
    file = FastMRI(path)
    assert (file.encoded, file.recon, file.header.padding, file.header.coils) == ((12, 9), (6, 9), (1, 8), 2)
    assert file.notes == [] and file.image_shape == (6, 9)


@pytest.mark.parametrize(
    ("value", "note"),
    [
        ("<a>", "not a readable"),
        ("<a/>", ""),
        ("", "not a readable"),
        (np.ones(3), "not text"),
        (" " * (LARGEST_HEADER + 1), "not text|bytes; at most"),
        (np.void(b"\x89PNG\xff\xfe"), "not a readable"),
    ],
)
def test_a_header_that_cannot_be_read_is_a_note(path, value, note):
    write_fastmri(path, white(1, 2, 12, 9))
    replaced(path, "ismrmrd_header", value)
    file = FastMRI(path)
    assert file.encoded is None and file.recon is None and file.crop == (12, 9)
    assert bool(note) == bool(file.notes) and re.search(note, " ".join(file.notes))


@pytest.mark.parametrize(
    ("old", "new", "none", "note"),
    [
        ("<x>12</x>", "<x>0</x>", "encoded", "0 x 9"),
        ("<x>12</x>", "<x>-4</x>", "encoded", "-4 x 9"),
        ("<x>12</x>", "<x>many</x>", "encoded", "'many'"),
        ("<x>12</x>", "<x>1e12</x>", "encoded", "'1e12'"),
        ("<x>12</x>", "<x/>", "encoded", ""),
        ("<maximum>6</maximum>", "<maximum/>", "padding", ""),
        ("<maximum>6</maximum>", "<maximum>nan</maximum>", "padding", "'nan'"),
        ("<receiverChannels>2</receiverChannels>", "", "coils", ""),
        ("reconSpace", "elsewhere", "recon", ""),
        ("encodingLimits", "elsewhere", "padding", ""),
    ],
)
def test_every_value_of_a_header_is_optional(path, old, new, none, note):
    header = parse_header(_with(old, new), "there")
    values = {"encoded": (12, 9), "recon": (6, 9), "padding": (1, 8), "coils": 2, none: None}
    values |= {"padding": None} if none == "encoded" else {}  # it counts from the encoded centre
    assert {name: getattr(header, name) for name in values} == values
    assert bool(note) == bool(header.notes) and note in " ".join(header.notes)


def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path):
    with pytest.raises(TypeError):
        write_fastmri(tmp_path / "scan.h5", white(1, 1, 4, 4), attributes={"a": object()})
    assert list(tmp_path.iterdir()) == []


# ---- Real scans.


@pytest.mark.parametrize("name", ["brain_t2_4ch", "phantom_oversampled_2ch", "brain_flash_16ch"])
def test_the_rss_of_real_scans_is_the_files_own(shared, name):
    file = FastMRI(shared / f"data/kspace/{name}.h5")
    rss = resize_image(ifft(file.kspace(0)).abs().square().sum(0).sqrt(), file.crop)
    target = file.target(0)
    assert rss.shape == target.shape and (rss - target).norm() < 1e-5 * target.norm()
    assert file.mask is None and file.notes == []


@pytest.mark.parametrize("name", ["prospective_poisson_8ch", "prospective_random_6ch"])
def test_the_masks_of_prospective_scans_are_their_zeros(shared, name, tmp_path):
    file = FastMRI(shared / f"data/kspace/{name}.h5")
    assert torch.equal(file.mask, (file.kspace(0) != 0).any(0)) and file.notes == []
    write_fastmri(tmp_path / "bare.h5", file.kspace(0)[None])
    bare = FastMRI(tmp_path / "bare.h5")
    assert torch.equal(bare.mask, file.mask) and "no mask" in bare.notes[0]
