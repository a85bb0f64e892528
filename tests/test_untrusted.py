"""The reading process: what it answers, what it survives, and what a hostile file of each kind comes to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mri_score import experiment
from mri_score.cli import main
from mri_score.errors import InputError, visible
from mri_score.files import alone, sha256
from mri_score.noise.parameters import read_parameters
from mri_score.priors.record import read_record, record_sha256
from mri_score.priors.store import build_prior, load_prior, save_prior
from mri_score.priors.unpickling import read_checkpoint
from mri_score.readers import open_scan
from mri_score.readers.arrays import open_npy, read_nifti, read_picture
from mri_score.readers.hdf5 import open_hdf5, plain_dataset
from mri_score.readers.maps import read_maps
from mri_score.untrusted import process, worker
from mri_score.untrusted.names import table_cell
from mri_score.untrusted.process import read_apart, trust

FUNCTIONS = str(Path(__file__).with_name("untrusted_functions.py"))
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is enforced on Linux")


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call a function of untrusted_functions.py in a reading process that finds it."""
    monkeypatch.syspath_prepend(str(Path(FUNCTIONS).parent))
    process.end_worker()
    yield lambda name, **arguments: read_apart(f"untrusted_functions:{name}", tmp_path / "file.bin", **arguments)
    process.end_worker()


def test_plain_values_come_back_as_they_were_from_another_process_without_torch(call):
    found = call("ordinary", factor=2.0)
    expected = np.arange(6).reshape(2, 3) * 2
    assert found["name"] == "file.bin" and found[3] == (1, None, b"\xff", [True, 2.5])
    assert found["numbers"].dtype == np.complex64 and np.array_equal(found["numbers"], expected)
    assert found["empty"].shape == (0, 4)
    first, second = call("process"), call("process")
    assert first == second and first[0] != os.getpid() and not first[1]
    with trust():
        assert call("process")[0] == os.getpid()


@pytest.mark.parametrize(
    ("function", "limits", "message"),
    [
        ("segfault", {}, r"file.bin cannot be read: the process that read it crashed \(SIGSEGV\)"),
        ("abort", {}, r"crashed \(SIGABRT\)"),
        pytest.param("swallow", {"memory": 64 << 20}, "needs more memory than 64 MiB", marks=LINUX),
        ("large", {"largest": 1 << 20}, "the process that read it"),
        ("fail", {}, r"it is damaged \(KeyError: 'no.x1b\[31m such.*thing'\)"),
        ("surprising", {}, "a value of the type object"),
    ],
)
def test_whatever_happens_there_is_one_message_and_the_next_file_is_read(call, function, limits, message):
    with pytest.raises(InputError, match=message) as caught:
        call(function, **limits)
    assert visible(str(caught.value)) == str(caught.value)
    assert call("ordinary")["name"] == "file.bin"


@pytest.mark.slow
def test_a_hang_ends_by_the_limit_on_processor_time(call):
    with pytest.raises(InputError, match="more than 1 s of processor time"):
        call("spin", seconds=1)


def test_a_wait_ends_after_all(call, monkeypatch):
    call("ordinary")
    monkeypatch.setattr(process, "PATIENCE", 0.3)
    with pytest.raises(InputError, match="it took longer than 0.3 s"):
        call("wait")


@LINUX
def test_the_reading_process_writes_no_file(call, tmp_path):
    with pytest.raises(InputError):
        call("write")
    assert not (tmp_path / "file.bin").exists() or not (tmp_path / "file.bin").stat().st_size


def test_threads_and_forks_each_get_their_own_answers(call):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: call("ordinary", factor=n)["numbers"][1, 2], range(20)))
    assert found == [5 * n for n in range(20)]
    if hasattr(os, "fork"):
        reader, writer = os.pipe()
        if not (child := os.fork()):
            os.write(writer, str(call("process")[0]).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert int(os.read(reader, 20)) != call("process")[0]


def test_without_a_child_files_are_read_here(call, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    process.end_worker()
    assert call("process")[0] == os.getpid()


def test_without_limits_of_the_system_there_are_none_and_files_are_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    limits = worker._Limits()
    limits.set(1, 1)
    limits.lift()
    assert limits.resource is None and len(bytearray(1 << 20)) == 1 << 20


def test_trusted_files_need_no_reading_process(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["kspace"] = np.ones((1, 2, 8, 8), np.complex64)
    process.end_worker()
    for option, started in (("--trust", False), ("-q", True)):
        result = CliRunner().invoke(main, ["info", str(tmp_path / "scan.h5"), option])
        assert result.exit_code == 0, result.output
        assert (process._current is not None) is started and not process.trusted()


def test_the_process_ends_with_its_program(tmp_path):
    script = (
        "from mri_score.untrusted import process\n"
        "from mri_score.errors import InputError\n"
        "try: process.read_apart('mri_score.readers.hdf5_parsing:contents', 'absent.h5')\n"
        "except InputError: pass\n"
        "print(process._current.process.pid, flush=True)\n"
        "import os; os._exit(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    gone = threading.Event()
    for _ in range(100):
        try:
            os.kill(int(done.stdout), 0)
        except ProcessLookupError:
            break
        gone.wait(0.05)
    else:
        state = Path(f"/proc/{done.stdout.strip()}/stat").read_text().split(")")[1].split()[0]
        assert state == "Z"  # nobody waits for it in this container


# ---- HDF5.


def dataset(path: Path, key: str = "kspace"):
    with open_hdf5(path) as file:
        return plain_dataset(file, path, key)


def test_parts_of_a_dataset_are_those_of_h5py(tmp_path):
    path, draws = tmp_path / "a.h5", np.random.default_rng(0)
    known = {
        "kspace": draws.standard_normal((4, 5, 6)),
        "big": draws.standard_normal((4, 5)).astype(">c8"),
        "long": draws.standard_normal(3).astype(np.longdouble),
        "g/inner": np.arange(3, dtype=">i2"),
    }
    with h5py.File(path, "w") as file:
        for key, values in known.items():
            file[key] = values
        file["text"] = ["a", "é"]
    parts = (0, -1, (), (2, slice(1, 4)), (..., 3), (slice(None, None, 2), ..., slice(5)), (1, 2, 3), slice(2, 2))
    for index in parts:
        assert np.array_equal(dataset(path)[index], known["kspace"][index]), index
    assert np.array_equal(dataset(path, "big")[()], known["big"]) and dataset(path, "big")[()].dtype == np.complex64
    assert np.allclose(dataset(path, "long")[()], known["long"]) and dataset(path, "long")[()].dtype == np.float64
    assert dataset(path, "text")[()].tolist() == [b"a", "é".encode()]
    assert dataset(path, "g/inner")[1:].tolist() == [1, 2]
    for index in (4, (0, 0, 0, 0), slice(None, None, -1), (..., ...)):
        with pytest.raises(IndexError):
            dataset(path)[index]


def test_samples_that_need_no_parser_are_those_of_h5py_and_need_no_process(tmp_path, monkeypatch):
    path, draws = tmp_path / "a.h5", np.random.default_rng(1)
    known = {
        "kspace": draws.standard_normal((3, 4, 5)).astype(">c8"),
        "g/half": draws.standard_normal((2, 3)).astype("<f2"),
        "counts": np.arange(7, dtype=">i4"),
    }
    parsed = {"mask": np.arange(6) % 2 == 0, "long": draws.standard_normal(3).astype(np.longdouble)}
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, values in (known | parsed).items():
            file[key] = values
        file.create_dataset("packed", data=known["counts"], compression="gzip")
        odd = h5py.h5t.IEEE_F64LE.copy()  # a float of 8 bytes, of which 56 bits count: no type of NumPy
        odd.set_fields(55, 47, 8, 0, 47)
        odd.set_ebias(127)
        odd.set_precision(56)
        h5py.h5d.create(file.id, b"odd", odd, h5py.h5s.create_simple((3,)))
        file["odd"][:] = [0.5, -3, 7]
    stored = {key: dataset(path, key) for key in (*known, *parsed, "packed", "odd")}
    expected = {key: values[()] for key, values in stored.items() if key not in known}
    assert expected["odd"].tolist() == [0.5, -3, 7] and np.array_equal(expected["packed"], known["counts"])
    np.save(tmp_path / "a.npy", known["kspace"])
    array = open_npy(tmp_path / "a.npy")

    def no_process(*args, **others):
        raise InputError("the reading process was asked")

    monkeypatch.setattr("mri_score.readers.hdf5.read_apart", no_process)
    parts = (0, -1, (), (1, slice(1, 3)), (slice(1, 2), 2, slice(1, 4)), (..., slice(None)), slice(3, 3), (2, 3, 4))
    for index in parts:
        for found in (stored["kspace"][index], array[index]):
            assert np.array_equal(found, known["kspace"][index]) and found.dtype == np.complex64, index
    for key in known:
        assert np.array_equal(stored[key][()], known[key])
    for key, index in (*((key, ()) for key in expected), ("kspace", (..., 3)), ("kspace", slice(None, None, 2))):
        with pytest.raises(InputError, match="was asked"):  # these need a parser, or lie apart
            stored[key][index]


def test_another_file_of_the_same_name_is_not_read_by_the_places_of_the_first(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = np.zeros((2, 3))
    first = dataset(path)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["other"] = np.full(40, 7.0)
        file["kspace"] = np.ones((2, 3))
    (tmp_path / "b.h5").replace(path)
    assert (first[0] == 1).all()
    path.write_bytes(path.read_bytes()[:-24])
    with pytest.raises(InputError, match="truncated or damaged"):
        first[1]
    path.unlink()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)  # which nobody waits for
        with pytest.raises(InputError, match=r"a\.h5"):
            first[0]


def test_chunks_that_were_never_written_are_zeros_and_compressed_masks_are_read(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        kspace = file.create_dataset("kspace", (200, 2, 96, 96), "c8", chunks=(1, 2, 96, 96), compression="gzip")
        kspace[100] = 1
        file.create_dataset("mask", data=np.tile(np.arange(368) % 4 == 0, (640, 1)).astype(float), compression="gzip")
    assert (dataset(path)[100] == 1).all() and not dataset(path)[7].any()
    assert dataset(path, "mask")[()].mean() == 0.25


def bomb(path: Path, kind: str) -> None:
    shape = (3, 3, 24, 20)
    with h5py.File(path, "w") as file:
        if kind == "claims":
            file.create_dataset("kspace", (10**6, 64, 512, 512), "c8", chunks=(1, 1, 64, 64), compression="gzip")
        elif kind == "deflated twice":
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk(shape)
            plist.set_deflate(9)
            plist.set_deflate(9)
            h5py.h5d.create(file.id, b"kspace", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple(shape), plist)
        elif kind == "inflates":
            wide = (3, 3, 240, 200)  # its stored bytes are no more than its size
            data = file.create_dataset("kspace", wide, "c8", chunks=wide, compression="gzip")
            data.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(400 << 20), 1))
        elif kind == "lzf":
            data = file.create_dataset("kspace", shape, "c8", chunks=shape, compression="lzf")
            data.id.write_direct_chunk((0, 0, 0, 0), b"\x1f" + b"x" * 32 + b"\xe0\xff\x00" * 10**6)
        elif kind == "filter":
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk(shape)
            plist.set_scaleoffset(h5py.h5z.SO_INT, 0)
            h5py.h5d.create(file.id, b"kspace", h5py.h5t.STD_I32LE, h5py.h5s.create_simple(shape), plist)
        elif kind == "variable length":
            file.create_dataset("kspace", (3,), h5py.vlen_dtype(np.float32))
        elif kind == "fields":
            file.create_dataset("kspace", (3, 2, 4, 4), [("r", "f4"), ("i", h5py.string_dtype())])
        else:
            file["kspace"] = h5py.SoftLink("/kspace")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("claims", r"declares \d+ bytes"),
        ("deflated twice", "is compressed several times over"),
        pytest.param("inflates", "truncated or damaged|more memory", marks=LINUX),
        ("lzf", "stores more than its chunks can hold"),
        ("filter", r"needs the HDF5 filters \[6\]; those read here are gzip, shuffle, fletcher32, lzf"),
        ("variable length", "values of variable length"),
        ("fields", r"several fields \(r, i\)|values of variable length"),
        ("link", "is a link"),
    ],
)
def test_hostile_hdf5_is_an_error_message(tmp_path, kind, message):
    bomb(tmp_path / "a.h5", kind)
    with pytest.raises(InputError, match=message):
        dataset(tmp_path / "a.h5")[0]


@pytest.mark.parametrize("name", ["abort_maps.h5", "vlen_2GiB.h5", "stride0.pth"])
def test_the_witnesses_are_refused(shared, name):
    if not (shared / "cases" / name).exists():
        pytest.skip("the witnesses are not among the development data")
    with pytest.raises(InputError, match=name):
        if name.endswith(".pth"):
            read_checkpoint(shared / "cases" / name)
        elif "maps" in name:
            read_maps(shared / "cases" / name, (2, 2, 16, 16))
        else:
            dataset(shared / "cases" / name, "ismrmrd_header")[()]


def test_a_file_in_use_is_not_called_damaged(tmp_path):
    path = tmp_path / "a.h5"
    script = f"import h5py; f = h5py.File({str(path)!r}, 'w'); f['kspace'] = [1]; f.flush(); print(1, flush=True)"
    script += "; input()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None and writer.stdin is not None
        writer.stdout.readline()
        with pytest.raises(InputError, match="a.h5 is in use: another program has it open for writing"):
            open_hdf5(path)
        writer.communicate("\n")
    assert dataset(path)[0] == 1


# ---- Other formats.


def test_arrays_and_pictures_declare_no_more_than_they_hold(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(12.0).reshape(3, 4).T)  # in Fortran order
    assert np.array_equal(open_npy(tmp_path / "a.npy")[1:, 2], np.arange(12.0).reshape(3, 4).T[1:, 2])
    for header in ("{'descr': '<f8', 'fortran_order': False, 'shape': (100000, 100000), }", "(" * 3000, "9" * 3000):
        (tmp_path / "b.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
        with pytest.raises(InputError, match=r"declares \d+ bytes|cannot read .* as a .npy file"):
            open_npy(tmp_path / "b.npy")
    png = b"\x89PNG\r\n\x1a\n"
    head = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    (tmp_path / "a.png").write_bytes(png + (13).to_bytes(4, "big") + head + zlib.crc32(head).to_bytes(4, "big"))
    with pytest.raises(InputError, match="a.png as one of PNG, JPEG"):
        read_picture(tmp_path / "a.png")
    (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n")  # would run Ghostscript
    with pytest.raises(InputError, match="a.eps as one of PNG, JPEG"):
        read_picture(tmp_path / "a.eps")


def test_a_nifti_bomb_is_refused_by_its_header(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    assert read_nifti(tmp_path / "a.nii.gz").shape == (6, 4, 5)
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.int16), np.eye(4)), tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    (tmp_path / "b.nii").write_bytes(data)
    with pytest.raises(InputError, match="at most 134217728 voxels"):
        read_nifti(tmp_path / "b.nii")


def saved_as(path: Path, zipped: bool, **values) -> Path:
    torch.save(values, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_are_what_torch_reads(tmp_path, zipped):
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64)
    tensors = {str(kind): torch.arange(6).reshape(2, 3).to(kind) for kind in kinds}
    rest = {
        "view": torch.arange(6.0)[1::2],
        "scalar": torch.tensor(2.0),
        "none": torch.zeros(0, 3),
        3: [1, (2.5, None)],
    }
    path = saved_as(tmp_path / "a.pth", zipped, tensors=tensors, rest=rest, text="é", flag=True, size=torch.Size([2]))
    found, known = read_checkpoint(path), torch.load(path, weights_only=True)
    assert found["text"] == "é" and found["flag"] is True and tuple(found["size"]) == (2,)
    assert found["rest"][3] == known["rest"][3]
    for part in ("tensors", "rest"):
        for key, value in known[part].items():
            if isinstance(value, torch.Tensor):
                assert found[part][key].dtype == value.dtype and torch.equal(found[part][key], value), key


@pytest.mark.parametrize("zipped", [True, False])
def test_a_stride_of_zero_is_not_made_real(tmp_path, zipped):
    path = saved_as(tmp_path / "a.pth", zipped, weight=torch.zeros(1).expand(1 << 15, 1 << 15))
    assert path.stat().st_size < 5000
    with pytest.raises(InputError, match=r"a.pth holds a tensor of shape \(32768, 32768\), 4294967296 bytes"):
        read_checkpoint(path)
    many = saved_as(tmp_path / "b.pth", zipped, **{str(n): torch.zeros(1 << 16)[:] for n in range(2)})
    assert len(read_checkpoint(many)) == 2
    whole = torch.zeros(1 << 18)
    alike = saved_as(tmp_path / "c.pth", zipped, **{str(n): whole for n in range(100)})
    with pytest.raises(InputError, match="far larger than the file"):
        read_checkpoint(alike)


NETWORK = {"name": "unet", "widths": [4, 8], "blocks": 1, "embedding": 8}


@pytest.fixture
def prior(tmp_path):
    path = tmp_path / "p.safetensors"
    made = build_prior(NETWORK, precondition="edm", sd=0.3, sigma_min=0.01, sigma_max=20.0)
    save_prior(path, made, NETWORK, {"step": 3})
    return path


def changed(path: Path, sign: bool = True, **values) -> None:
    record = {**json.loads(path.with_suffix(".json").read_text()), **values}
    record["sha256"] = sha256(path)
    if sign:
        record["record_sha256"] = record_sha256(record)
    path.with_suffix(".json").write_text(json.dumps(record))


def test_a_record_is_under_its_own_hash_and_old_ones_load(prior):
    record = read_record(prior)
    assert record["record_sha256"] == record_sha256(record) == record_sha256(dict(reversed(record.items())))
    trained = {**record, "about": {"denoising_errors": {1.0: 0.2, 3.0: 0.3, 10.0: 0.1}}}  # numbers as keys
    assert record_sha256(trained) == record_sha256(json.loads(json.dumps(trained)))
    changed(prior, sign=False, about={"step": 4})
    with pytest.raises(InputError, match="p.json is damaged or was changed by hand"):
        load_prior(prior)
    del record["record_sha256"]
    prior.with_suffix(".json").write_text(json.dumps(record))
    load_prior(prior)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"widths": [200_000, 200_000]}, "the network is larger than the file"),
        ({"blocks": 10**8}, "the network is larger than the file"),
        ({"widths": [10**12, 8]}, "cannot be built|larger than the file"),
        ({"embedding": 16}, "tensors have another shape"),
        ({"blocks": 0}, "in one of the two only"),
        ({"widths": []}, "cannot be built"),
        ({"widths": "a"}, "cannot be built"),
    ],
)
def test_a_network_larger_than_the_file_takes_no_memory(prior, network, message):
    changed(prior, network={**NETWORK, **network})
    with pytest.raises(InputError, match=f"p.safetensors does not fit its p.json.*({message})"):
        load_prior(prior)


@pytest.mark.parametrize(
    "values",
    [
        {"prior": {"precondition": "edm", "sd": float("nan")}},
        {"prior": {"precondition": "edm", "sd": 0}},
        {"prior": {"precondition": "edm", "sd": 0.3, "sigma_min": 2.0, "sigma_max": 1.0}},
        {"prior": {"precondition": "edm", "sd": 0.3, "sigma_max": float("inf")}},
        {"prior": [1]},
        {"about": "text"},
        {"about": {"ood_thresholds": {"four": 1}}},
        {"about": {"denoising_errors": {"0.1": "x"}}},
        {"network": 3},
    ],
)
def test_numbers_of_a_record_are_checked(prior, values):
    changed(prior, **values)
    with pytest.raises(InputError, match=r"p\.json|sigma_min <= sigma_max"):
        load_prior(prior)


def test_weights_with_nan_are_refused(tmp_path):
    made = build_prior(NETWORK, precondition="edm", sd=0.3, sigma_min=0.01, sigma_max=20.0)
    with torch.no_grad():
        next(iter(made.parameters())).fill_(torch.nan)
    save_prior(tmp_path / "p.safetensors", made, NETWORK, {})
    with pytest.raises(InputError, match="NaN or infinity in its weights"):
        load_prior(tmp_path / "p.safetensors")


# ---- Text.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it must have sections"),
        ("- a", "it must have sections"),
        ("? [1, 2]\n: 3", "keys are names"),
        ("? {a: 1}\n: 3", "keys are names"),
        ("3: 4", "keys are names"),
        ("[" * 5000, "nested more than"),
        ("a: " * 3 + "b", "not valid YAML"),
        ("seed: 2026-13-45", "not valid YAML"),
        ("seed: " + "9" * 5000, "not valid YAML"),
        ("seed: -1", "seed is -1"),
        ("data: 3", "the section data is 3"),
        ("training: !!python/name:os.system", "not valid YAML"),
        ("x" * 70_000, "larger than 65536 bytes"),
        ("training: {learning_rate: -1.0}", "training.learning_rate is -1.0; allowed"),
        ("training: {learning_rate: .nan}", "training.learning_rate is nan"),
        ("training: {batch_size: 0}", "training.batch_size is 0; allowed are numbers from 1"),
        ("training: {betas: [0.9, 1.0]}", "training.betas is"),
        ("training: {clip: .inf}", "training.clip is inf"),
    ],
)
def test_odd_configs_are_one_message_before_anything_runs(tmp_path, text, message):
    (tmp_path / "odd.yml").write_text(text)
    result = CliRunner().invoke(main, ["train", "--config", str(tmp_path / "odd.yml"), "--out", str(tmp_path / "run")])
    assert result.exit_code == 2 and not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=message):
        experiment.training_options(experiment.read_config(tmp_path / "odd.yml"), "cpu")


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("schedule", {"name": "geometric", "sigma_min": 5.0, "sigma_max": 1.0}),
        ("schedule", {"name": "geometric", "sigma_max": float("nan")}),
        ("schedule", {"name": ["geometric"]}),
        ("prior", {"sd": 0.0}),
        ("prior", {"sd": -1.0}),
        ("network", {"name": "unet", "widths": []}),
        ("network", {"name": "unet", "widths": [60000, 60000, 60000]}),
        ("network", {"name": "unet", "widths": [-4]}),
        ("network", {"name": "unet", "blocks": 45045}),
        ("network", {"name": "unet", "widths": [4] * 900, "blocks": 1000}),
    ],
)
def test_numbers_of_sections_are_checked(section, values):
    config = {"network": {"name": "unet", "widths": [4]}, section: values}
    parameters = experiment.Parameters(sigma_max=20.0, sd=0.3)
    with pytest.raises(InputError):
        experiment.make_loss(config, parameters)
        experiment.make_prior(config, parameters)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_no_file_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    for read in (read_parameters, experiment.read_config, open_hdf5, open_npy, read_picture, read_checkpoint):
        with pytest.raises(InputError):
            read(tmp_path / "pipe.txt")


# ---- Names, terminals, tables, links.


def test_nothing_steers_the_terminal_or_forges_a_line(tmp_path):
    assert visible("Ä 中 \x1b[2J\r\n\u202e\x9b\udcff") == r"Ä 中 \x1b[2J\r\n\u202e\x9b\udcff"
    assert str(InputError("a\nError: b\x1b[0m")) == r"a Error: b\x1b[0m"
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = np.ones((1, 2, 8, 8), np.complex64)
        file.attrs["acquisition"] = "\x1b]0;title\x07AXT2\nfinished: forged"
    output = CliRunner().invoke(main, ["info", str(path)]).output
    assert r"\x1b]0;title\x07AXT2\nfinished: forged" in output and "\x1b" not in output


@pytest.mark.parametrize("name", ["a\n.h5", "a\x1b[31m.h5", "a\u202e.h5", os.fsdecode(b"a\xff.h5")])
def test_file_names_that_cannot_be_printed_are_refused(tmp_path, name):
    try:
        (tmp_path / name).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system refuses the name itself")
    with pytest.raises(InputError, match="has control characters or is not UTF-8; rename the file"):
        open_scan(tmp_path / name)


def test_cells_of_tables_are_no_formulas():
    for text in ("=1+1", "+a", "-a", "@a", "  =1"):
        assert table_cell(text).startswith("'")
    for text in ("a=1", "|MVUE|", "-3.5", "scan-1.h5"):
        assert table_cell(text) == text


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system cannot refuse links")
def test_a_lock_is_not_opened_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / ".metrics.csv.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match="cannot write"), alone(tmp_path / "metrics.csv"):
        pass
    assert (tmp_path / "precious").read_text() == "kept"
