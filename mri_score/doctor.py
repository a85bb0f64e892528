"""Checks of an installation: versions, machine, programs beside it, and a self-test with known numbers."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from mri_score import __version__
from mri_score.memory.free import free_memory

if TYPE_CHECKING:  # torch is imported by the self-test alone
    from torch import Tensor

    from mri_score.data.acquisition import Acquisition

OK, NOTE, FAILED = "ok", "note", "failed"
"""Outcome of a check: as it should be; works, with a limit that the text states; mri_score will not work."""
LEAST_MEMORY = 4 << 30
"""Free memory below which whole slices of 320 x 320 with 16 coils may not fit, in bytes."""
LEAST_DISK = 1 << 30
"""Free space of a folder below which results may not fit, in bytes."""
FEATURES = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "neon", "asimd", "bf16")
"""Instruction sets that change the speed of a network, as /proc/cpuinfo names them."""


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report.

    group: "versions", "machine", "programs" or "self-test". name: of what was checked. found: what is there. outcome:
    OK, NOTE or FAILED. advice: what to do, empty where nothing is to be done.
    """

    group: str
    name: str
    found: str
    outcome: str = OK
    advice: str = ""


def installation() -> Iterator[Check]:
    """Versions of mri_score, of Python and of each dependency, against the lower bounds of the package. No torch."""
    yield Check("versions", "mri-score", f"{__version__}, {Path(__file__).parent}")
    outcome, advice = (OK, "") if sys.version_info >= (3, 10) else (FAILED, "install Python 3.10 or newer")
    yield Check("versions", "python", f"{platform.python_version()}, {sys.executable}", outcome, advice)
    try:
        needed = requires("mri-score") or []
    except PackageNotFoundError:
        yield Check("versions", "packages", "mri-score is not installed", FAILED, "pip install . in the checkout")
        return
    extras: dict[str, list[str]] = {}
    for line in needed:
        if (extra := re.search(r"extra == ['\"](\w+)['\"]", line)) is not None:
            extras.setdefault(extra[1], []).append(line)
            continue
        name, found, least = _package(line)
        if found is None:
            yield Check("versions", name, "missing", FAILED, f'pip install "{name}>={least}"')
        elif _number(found) < _number(least):
            yield Check("versions", name, f"{found}, needs {least}", FAILED, f'pip install "{name}>={least}"')
        else:
            yield Check("versions", name, found)
    for group in sorted(extras.keys() - {"test", "docs"}):
        missing = [name for name, found, _ in map(_package, extras[group]) if found is None]
        text = "installed" if not missing else f"not installed ({', '.join(missing)}); pip install mri-score[{group}]"
        yield Check("versions", f"extra {group}", text)


def _package(requirement: str) -> tuple[str, str | None, str]:
    """Name, installed version (None: not installed) and lower bound of a requirement such as `numpy>=2.0`."""
    name = re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]
    least = re.search(r">=\s*([\w.]+)", requirement)
    try:
        found = version(name)
    except PackageNotFoundError:
        found = None
    return name, found, "0" if least is None else least[1]


def _number(text: str) -> tuple[int, ...]:
    """The release of a version as numbers, such as (2, 10, 0) of `2.10.0+cpu`."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[+a-z]", text, maxsplit=1)[0]))


def machine(folder: Path = Path(".")) -> Iterator[Check]:
    """System, processor, cores, free memory, free space, GPU driver. No torch. folder: where results would go."""
    yield Check("machine", "system", f"{platform.system()} {platform.release()}, {platform.machine()}")
    model, flags = _processor()
    known = [name for name in FEATURES if name in flags]
    yield Check("machine", "processor", f"{model}; {', '.join(known) or 'no vector features found'}")
    threads = os.environ.get("OMP_NUM_THREADS")
    stated = "" if threads is None else f"; OMP_NUM_THREADS={threads}"
    yield Check("machine", "cores", f"{_cores()} for this process, {os.cpu_count()} in the machine{stated}")
    free = free_memory()
    outcome, advice = OK, ""
    if free < LEAST_MEMORY:
        outcome, advice = NOTE, "large slices may not fit: lower --batch-size or --coils; --dry-run states the need"
    yield Check("machine", "free memory", f"{free / 2**30:.1f} GiB", outcome, advice)
    for name, place in (("free space here", folder), ("temporary files", Path(tempfile.gettempdir()))):
        yield _space(name, place)


def _processor() -> tuple[str, set[str]]:
    """The name of the processor and its feature flags; empty flags where /proc/cpuinfo does not exist."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    facts = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    model = facts.get("model name") or platform.processor() or platform.machine()
    return model, set((facts.get("flags") or facts.get("features") or "").split())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _space(name: str, folder: Path) -> Check:
    text = f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB in {folder.resolve()}"
    if not os.access(folder, os.W_OK):
        return Check("machine", name, f"{text}, read-only", NOTE, "write results elsewhere with --out")
    if shutil.disk_usage(folder).free < LEAST_DISK:
        return Check("machine", name, text, NOTE, "make room, or write results elsewhere with --out")
    return Check("machine", name, text)


def programs() -> Iterator[Check]:
    """Programs that are used where they are installed: BART, and NVIDIA's driver. No torch."""
    bart = shutil.which("bart")
    if bart is None:
        yield Check("programs", "BART", "not installed; only the baselines bart-l1-wavelet and bart-tv need it")
    else:
        yield Check("programs", "BART", f"{_output(bart, 'version') or 'does not run'}, {bart}")
    driver = shutil.which("nvidia-smi")
    if driver is None:
        yield Check("programs", "NVIDIA driver", "not found; the CPU is used")
    else:
        cards = _output(driver, "--query-gpu=name,driver_version,memory.free", "--format=csv,noheader")
        yield Check("programs", "NVIDIA driver", cards or "does not answer")


def _output(*command: str) -> str:
    """The first lines of what a program prints, joined; empty where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "; ".join(done.stdout.split("\n")[:4]).strip("; ") if done.returncode == 0 else ""


# ---- The self-test: what is computed here, against numbers that are known.

NETWORK = (0.47209, 0.25530)
"""Root mean square, and the mean of |real part|, of what `brain-fast` makes of the image of `_waves` at sigma 0.5."""
PSNR = {"zero-filled": 22.22, "matched-draw": 32.03}
"""PSNR in dB of two images of the simulated scan of `_reconstruction`, from this release on an x86-64 processor."""
TOLERANCE = 0.2
"""Largest difference to PSNR, in dB. Other processors round otherwise; a wrong factor changes it by more than 1 dB."""


def self_test() -> Iterator[Check]:
    """Compute things whose result is known; about ten seconds on two cores. Imports torch.

    A test that raises an error has failed; the others run all the same.
    """
    try:
        import torch

        threads, cuda = torch.get_num_threads(), torch.cuda.is_available()
        yield Check("self-test", "torch", f"{torch.__version__}, {threads} threads, {'GPU' if cuda else 'no GPU'}")
    except Exception as error:
        yield Check("self-test", "torch", f"cannot be imported: {error}", FAILED, "install torch again")
        return
    tests: list[tuple[str, Callable[[], tuple[str, bool]]]] = [
        ("Fourier transform", _fourier),
        ("forward operator", _adjoint),
        ("reading process", _file),
        ("network", _network),
        ("reconstruction", _reconstruction),
    ]
    if cuda:
        tests.insert(4, ("network on the GPU", _gpu))
    for name, test in tests:
        start = time.perf_counter()
        try:
            found, good = test()
        except Exception as error:
            found, good = f"{type(error).__name__}: {error}", False
        text = f"{found} ({time.perf_counter() - start:.1f} s)"
        advice = "" if good else "please report it, with this output: mri-score doctor --json"
        yield Check("self-test", name, text, OK if good else FAILED, advice)


def _fourier() -> tuple[str, bool]:
    """A point at the centre of an image of odd size has the constant spectrum 1 / sqrt(N)."""
    import torch

    from mri_score.numerics.fourier import fft

    point = torch.zeros(1, 35, 28, dtype=torch.complex64)
    point[0, 17, 14] = 1
    error = float((fft(point) * math.sqrt(35 * 28) - 1).abs().max())
    return f"a centred point has a constant spectrum, error {error:.0e}", error < 1e-5


def _adjoint() -> tuple[str, bool]:
    """<A x, y> = <x, A^H y> for the SENSE operator of a simulated scan."""
    import torch

    from mri_score.numerics.noise import generators, noise_like

    scan, image = _scan()
    A = scan.operator()
    x, y = (noise_like(like, generators(seed, "doctor")) for seed, like in enumerate((image, scan.kspace)))
    one, other = torch.vdot(A(x).flatten(), y.flatten()), torch.vdot(x.flatten(), A.adjoint(y).flatten())
    error = float((one - other).abs() / one.abs())
    return f"adjoint of the forward operator, relative error {error:.0e}", error < 1e-4


def _file() -> tuple[str, bool]:
    """A simulated file is read back by the process that reads files of others."""
    from mri_score.readers import open_scan
    from mri_score.simulation.simulate import simulate

    with tempfile.TemporaryDirectory() as folder:
        (path,) = simulate(Path(folder), volumes=1, slices=1, size=32, coils=2)
        scan = open_scan(path)
        shape = tuple(scan.kspace(0).shape)
    return f"a simulated scan of {shape[0]} coils, {shape[1]} x {shape[2]}, was written and read", shape == (2, 32, 32)


def _network() -> tuple[str, bool]:
    found = _denoised("cpu")
    right = all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(found, NETWORK, strict=True))
    return f"brain-fast gives {found[0]:.5f}, {found[1]:.5f}; expected {NETWORK[0]:.5f}, {NETWORK[1]:.5f}", right


def _gpu() -> tuple[str, bool]:
    found, known = _denoised("cuda"), _denoised("cpu")
    right = all(math.isclose(a, b, rel_tol=1e-2) for a, b in zip(found, known, strict=True))
    return f"brain-fast gives {found[0]:.5f}, {found[1]:.5f}; on the CPU {known[0]:.5f}, {known[1]:.5f}", right


def _denoised(device: str) -> tuple[float, float]:
    import torch

    from mri_score.priors.store import load_prior

    with torch.no_grad():
        image = load_prior("brain-fast").to(device).denoise(_waves().to(device), torch.tensor(0.5, device=device))
    return float(image.abs().square().mean().sqrt()), float(image.real.abs().mean())


def _waves() -> Tensor:
    """Complex (1, 64, 64): waves in both directions under a Gaussian window, without random numbers."""
    import torch

    row, col = torch.meshgrid(torch.arange(64.0) - 32, torch.arange(64.0) - 32, indexing="ij")
    window = torch.exp(-(row**2 + col**2) / 800)
    return torch.complex(window * torch.cos(0.3 * row + 0.1 * col), window * torch.sin(0.2 * col))[None]


def _scan() -> tuple[Acquisition, Tensor]:
    """A simulated head of 64 x 64 with 4 coils at acceleration 3, and its true image (1, 64, 64)."""
    from mri_score.data.masks import undersample
    from mri_score.simulation.phantom import phantom

    scan = undersample(phantom(64, coils=4), acceleration=3)
    assert scan.image is not None
    return scan, scan.image


def _reconstruction() -> tuple[str, bool]:
    """The default method on a simulated head of 64 x 64 with 4 coils at acceleration 3, scored against its truth."""
    from mri_score.reconstruction import reconstruct

    scan, image = _scan()
    truth = image[0].abs()
    images = {
        "zero-filled": scan.operator().adjoint(scan.kspace)[0].abs(),
        "matched-draw": reconstruct(
            scan.kspace, maps=scan.maps, mask=scan.mask, noise_std=float(scan.noise_std), prior="brain-fast", samples=2,
            device="cpu",
        ).image[0].abs(),
    }  # fmt: skip
    found = {
        name: 20 * math.log10(float(truth.max()) / float((image - truth).square().mean().sqrt()))
        for name, image in images.items()
    }
    right = all(abs(found[name] - PSNR[name]) < TOLERANCE for name in PSNR)
    both = ", ".join(f"{name} {found[name]:.2f} dB (expected {PSNR[name]:.2f})" for name in PSNR)
    return both, right
