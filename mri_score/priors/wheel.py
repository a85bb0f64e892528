"""A prior as a package: a wheel of its own, found by the name of its entry point once it is installed.

The wheel holds weights, record and model card, and no code but an empty module.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

from mri_score.errors import InputError
from mri_score.files import whole_file
from mri_score.priors.installed import GROUP
from mri_score.priors.record import bundled_priors, find_prior, read_record

STAMP = (1980, 1, 1, 0, 0, 0)
"""The time of all files in a wheel, so that equal priors give equal wheels."""


def write_prior_wheel(prior: str | Path, out: Path, name: str | None = None, version: str = "1.0") -> Path:
    """Write `mri_score_prior_<name>-<version>-py3-none-any.whl`; return its path.

    prior: a run folder, or a .safetensors file with its record and its model card. out: the folder of the wheel. name:
    of the prior, as `--prior` takes it; None: that of the file, or of the run folder. version: of the package.
    Errors: InputError for a prior that is damaged or has no model card, and for names and versions that packages cannot
    have, or that a bundled prior has.
    """
    path = find_prior(prior)
    name = name or (Path(prior).name if Path(prior).is_dir() else path.stem)
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or name in bundled_priors():
        raise InputError(f"--name {name!r} must be small letters, digits and hyphens, and not a bundled prior's")
    if not re.fullmatch(r"\d+(\.\d+)*((a|b|rc|\.post|\.dev)\d+)?", version):
        raise InputError(f"--version {version!r} must be a version of a package, such as 1.0 or 1.2.1")
    record = read_record(path)
    card = path.with_suffix(".md")
    if not card.is_file():
        raise InputError(f"{path} has no model card {card.name} beside it; make one with: mri-score export-prior")
    module = f"mri_score_prior_{name.replace('-', '_')}"
    summary = " ".join(str((record.get("about") or {}).get("summary") or "A prior for mri_score").split())
    info = f"{module}-{version}.dist-info"
    text = card.read_text(encoding="utf-8")
    metadata = (
        f"Metadata-Version: 2.1\nName: mri-score-prior-{name}\nVersion: {version}\nSummary: {summary}\n"
        f"Requires-Dist: mri-score\nDescription-Content-Type: text/markdown\n\n{text}"
    )
    files = {
        f"{module}/__init__.py": b"",
        f"{module}/{name}.safetensors": path.read_bytes(),
        f"{module}/{name}.json": path.with_suffix(".json").read_bytes(),
        f"{module}/{name}.md": text.encode(),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: mri_score\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[{GROUP}]\n{name} = {module}\n".encode(),
    }
    lines = [f"{place},sha256={_digest(content)},{len(content)}" for place, content in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    wheel = out / f"{module}-{version}-py3-none-any.whl"
    with whole_file(wheel) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for place, content in files.items():
            entry = zipfile.ZipInfo(place, STAMP)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content)
    return wheel


def _digest(content: bytes) -> str:
    return urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
