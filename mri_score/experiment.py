"""From a YAML config to the objects of a training run.

The `name` of a section selects a class; every other key of the section is a keyword argument of that class. A config
states only what differs from the defaults.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import math
import typing
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pydantic
import torch
import yaml

from mri_score.config_file import read_config
from mri_score.data.pixel_values import PixelValues
from mri_score.errors import InputError, unknown_name
from mri_score.files import claimed, write_text
from mri_score.losses import LOSSES
from mri_score.losses.base import Loss
from mri_score.models.generator import GENERATOR, Generator
from mri_score.models.network import NetworkPrior
from mri_score.networks import NETWORKS
from mri_score.networks.experts import Experts
from mri_score.networks.unet import UNet
from mri_score.noise.parameters import (
    Parameters,
    bare_parameters,
    completed,
    measure,
    read_parameters,
    write_parameters,
)
from mri_score.noise.schedules import (
    VP,
    AboveNoise,
    Automatic,
    Fixed,
    Geometric,
    Karras,
    LinearBetas,
    LogNormal,
    Schedule,
    SubVP,
    Uniform,
)
from mri_score.numerics.noise import generators
from mri_score.priors.shapes import require_size
from mri_score.priors.store import load_prior, save_prior
from mri_score.progress import progress
from mri_score.ranges import check_range
from mri_score.reconstruction import find_device
from mri_score.sources.full_scans import Slices
from mri_score.sources.magnitude_images import ImageStacks
from mri_score.sources.own import own_source
from mri_score.sources.plain_images import PlainImages
from mri_score.sources.simulated_scans import UndersampledImages
from mri_score.sources.undersampled_scans import UndersampledScans, filled_image
from mri_score.training.batches import Batches, Source
from mri_score.training.figures import Figures
from mri_score.training.loop import TrainingOptions, train
from mri_score.training.processes import first_process


def build(section: str, values: Mapping[str, Any] | None, known: Mapping[str, Callable], **given: Any) -> Any:
    """Construct the object of a config section: known[name](other keys of the section).

    section: its name, for messages. values: its keys; `name` may be missing if `known` has a single entry. known: name
    -> class or function. given: arguments that the program supplies if the class takes them and the section has no such
    key. Errors: InputError for unknown names and keys, missing keys, and values of another type.
    """
    values = dict(values or {})
    name = values.pop("name", next(iter(known)) if len(known) == 1 else None)
    if not isinstance(name, str) or name not in known:
        raise unknown_name(f"{section}.name", name, known)
    return call(section, known[name], values, **given)


def call(section: str, target: Callable, values: Mapping[str, Any] | None, **given: Any) -> Any:
    """target(**values), with values converted to the types in its signature. Arguments and errors as in `build`."""
    bound = bind(section, target, values, **given)
    try:
        return bound()
    except InputError:
        raise
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{section}: these values cannot be used together: {error or type(error).__name__}") from error


def bind(section: str, target: Callable, values: Mapping[str, Any] | None, **given: Any) -> Callable[[], Any]:
    """A function without arguments that calls target with checked values.

    section: its name, for messages. target: a class or function. values: its keyword arguments, from a config. given:
    further arguments, as in `build`.
    Errors: InputError for unknown and missing keys, and values of another type.
    """
    signature = inspect.signature(target)
    hints = argument_types(target)
    supplied = {key: value for key, value in given.items() if key in signature.parameters}
    fields: dict[str, Any] = {}
    for key, parameter in signature.parameters.items():
        if key in given and key not in (values or {}):
            continue
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[key] = (hints.get(key, Any), default)
    model = pydantic.create_model(
        section,
        __config__=pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False),
        **fields,
    )
    try:
        checked = model(**dict(values or {}))
    except pydantic.ValidationError as error:
        raise InputError(_message(section, error, fields)) from error
    for key in checked.model_fields_set:
        check_range(section, section, key, getattr(checked, key))
    return partial(target, **supplied | {key: getattr(checked, key) for key in checked.model_fields_set})


def argument_types(target: Callable) -> dict[str, Any]:
    """The types of the arguments of a function or class; of a dataclass each field as its own module understands it."""
    if not dataclasses.is_dataclass(target):
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    hints = typing.get_type_hints(target)
    return {key: hint.type if isinstance(hint, dataclasses.InitVar) else hint for key, hint in hints.items()}


def _message(section: str, error: pydantic.ValidationError, fields: Mapping[str, Any]) -> str:
    problem = error.errors()[0]
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{section} has the unknown key {key!r}; known keys: {', '.join(sorted(fields))}"
    if problem["type"] == "missing":
        return f"{section}.{key} is missing; set it in the config or with --set {section}.{key}=..."
    return f"{section}.{key} is {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


# ---- The objects of a training run.

SCHEDULES = {
    "above-noise": AboveNoise,
    "automatic": Automatic,
    "ddpm": LinearBetas,
    "fixed": Fixed,
    "geometric": Geometric,
    "karras": Karras,
    "lognormal": LogNormal,
    "sub-vp": SubVP,
    "uniform": Uniform,
    "vp": VP,
}
SOURCES = {
    "fastmri": Slices,
    "images": ImageStacks,
    "plain_images": PlainImages,
    "simulated_scans": UndersampledImages,
    "undersampled_scans": UndersampledScans,
}
FORMER_SOURCES = {"scans": "undersampled_scans", "undersampled": "simulated_scans"}
"""Former names, in configs of earlier runs."""
DISTANCES = {"automatic": None, "pairwise": False, "phase-free": True}
"""Definitions of technique 1, and whether each counts a random global phase (None: for complex images)."""
VALIDATION_IMAGES = 64


def make_source(config: Mapping[str, Any], section: str = "data") -> Source:
    """The source of training items of a config's section, `data` or `validation`.

    A name such as package.module:Class is a class of the user's, see `own_source`. Errors: as in `build`.
    """
    values = dict(config.get(section) or {})
    if isinstance(former := values.get("name"), str):
        values["name"] = FORMER_SOURCES.get(former, former)
        if ":" in former:
            return own_source(values)
    if values.get("name") == "images" and "channels" in values:  # 2: complex images, as without the key
        values["name"] = "images" if values["channels"] == 2 else "plain_images"
        values = {key: value for key, value in values.items() if key != "channels" or value != 2}
    return build(section, values, SOURCES)


def training_options(config: Mapping[str, Any], device: str = "auto", quiet: bool = False) -> TrainingOptions:
    """The section `training` of a config. device: as in `find_device`. quiet: no progress bar. Errors: as in `build`.
    """
    settings = {"device": str(find_device(device)), "seed": config.get("seed", 0)}
    return call("training", TrainingOptions, settings | (config.get("training") or {}), quiet=quiet)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How the numbers of a dataset are measured: the keys of a config's section `calibration`.

    distance: of technique 1: `pairwise`, the largest Euclidean distance between two images, as published;
    `phase-free`, the sum of the two largest norms, which is the largest distance if each image may have any global
    phase; `automatic`, the second for complex images and the first for real ones.
    overlap: of neighbouring levels, for technique 2. repeats: Langevin steps a level, for technique 4.
    sigma_min: smallest level; None: 0.004, or the noise of the images.
    count: images that are measured. subsample: images that are compared in pairs.
    Errors: InputError for an unknown distance.
    """

    distance: str = "automatic"
    overlap: float = 0.5
    repeats: int = 3
    sigma_min: float | None = None
    count: int = 1000
    subsample: int = 1000

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise unknown_name("calibration.distance", self.distance, DISTANCES)


def calibrate(config: Mapping[str, Any], source: Source, count: int | None = None) -> Parameters:
    """Measure statistics of the training images: augmented, cropped and scaled as in training.

    config: for its seed and its section `calibration`. source: the training items. count: number of items to measure;
    None: that of the config.
    For undersampled items, the zero-filled images are measured, with noise at unsampled points; they lack a few per
    cent of the energy. If items have noise_std, the noise of each image is subtracted from sigma_max and sd.
    """
    seed = int(config.get("seed", 0))
    how: Calibration = call("calibration", Calibration, config.get("calibration"))
    count = how.count if count is None else count
    images: list[torch.Tensor] = []
    levels: list[float] = []
    with progress(count, "image", "measuring") as bar:
        for one in generators(seed, "calibrate", 0, count):
            item = source.sample(one)
            images.append((filled_image(item, [one]) if item.image is None else item.image)[0])
            levels.extend([] if item.noise_std is None else [float(item.noise_std.square().mean().sqrt())])
            bar.update()
    found = measure(
        images, noise_std=levels or None, sigma_min=how.sigma_min, overlap=how.overlap, repeats=how.repeats,
        global_phase=DISTANCES[how.distance], subsample=how.subsample, seed=seed,
    )  # fmt: skip
    return replace(found, data=data_fingerprint(config))


NO_INFLUENCE = ("cache", "memory", "quiet", "strict")
"""Keys of the data section that do not change the images."""


def data_fingerprint(config: Mapping[str, Any]) -> str:
    """A text of 16 digits that changes with the training data of a config: names and sizes of files, and settings.

    Where the files lie does not count.
    """
    data = config.get("data") or {}
    facts = {key: _contents(value) for key, value in data.items() if key not in NO_INFLUENCE}
    if config.get("calibration"):
        facts["calibration"] = dict(config["calibration"])
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _contents(value: Any) -> Any:
    """A setting; paths that exist are replaced by the names and sizes of the files there."""
    if isinstance(value, list | tuple):
        found = [_contents(one) for one in value]
        return sorted(found, key=str) if all(isinstance(one, str) for one in value) else found
    path = Path(value) if isinstance(value, str) and value else None
    if path is None or not path.exists():
        return value
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [[file.name, file.stat().st_size] for file in files if file.is_file() and not file.name.startswith(".")]


def find_parameters(
    config: Mapping[str, Any],
    source: Callable[[], Source],
    folder: Path | None,
    say: Callable[[str], None] | None = None,
) -> Parameters:
    """The parameters of the dataset of a config.

    They come from parameters.txt in `folder`, from parameters/<dataset>.txt here, as `mri-score calibrate` writes it,
    or from the bundled one; else they are measured on `source()`, all but sigma_max if the file has that alone. Nothing
    is written. say: called with a note where a
    file does not state what it was measured on, or the bundled one was measured on images of another size.
    Errors: InputError for an invalid dataset name, and for parameters of other data or of images of another size.
    """
    dataset = config.get("dataset")
    if not isinstance(dataset, str) or not dataset or Path(dataset).name != dataset:
        raise InputError(f"dataset is {dataset!r}; give the training data a name, for parameters/<name>.txt")
    here = Path("parameters") / f"{dataset}.txt"
    bundled = Path(str(files("mri_score.parameters"))) / f"{dataset}.txt"
    if folder is not None and (kept := folder / "parameters.txt").is_file():
        parameters = read_parameters(kept)
        if not _is_bundled(parameters, bundled):  # a copy of those was noted when the run began
            _check_dimension(kept, parameters, source())
        return parameters
    for path in (here, bundled):
        if path.is_file():
            if (bare := bare_parameters(path)) is not None:
                if say is not None:
                    say(f"{path} has sigma_max {bare.sigma_max:g} alone; the other numbers are measured")
                return completed(bare, calibrate(config, source()))
            parameters = read_parameters(path)
            _check_data(path, parameters, config, say)
            try:
                _check_dimension(path, parameters, source())
            except InputError as error:
                if path is here and not _is_bundled(parameters, bundled):
                    raise
                if say is not None:  # the bundled numbers of a dataset serve its configs of all sizes
                    say(f"{error}; they are used as they are")
            return parameters
    return calibrate(config, source())


def _is_bundled(parameters: Parameters, bundled: Path) -> bool:
    return bundled.is_file() and parameters == read_parameters(bundled)


ANEW = (
    "measure them anew with: mri-score calibrate --config ... --data ...; or name the data otherwise, by --set"
    " dataset=NAME"
)


def _check_data(
    path: Path, parameters: Parameters, config: Mapping[str, Any], say: Callable[[str], None] | None
) -> None:
    expected = data_fingerprint(config)
    if parameters.data is None and say is not None:
        say(f"{path} does not state the data that it was measured on; if they are not these, {ANEW}")
    if parameters.data not in (None, expected):
        raise InputError(
            f"{path} was measured on other data, or on these with other settings (fingerprint {parameters.data}, now"
            f" {expected}); {ANEW}"
        )


def _check_dimension(path: Path, parameters: Parameters, source: Source) -> None:
    if parameters.dimension is None:
        return
    item = source.sample(generators(0, "dimension")[0])
    images = item.kspace if item.image is None else item.image
    assert images is not None
    shape = images.shape[-2:]
    size = math.prod(images.shape[1:] if item.image is not None else shape) * (2 if images.is_complex() else 1)
    if size != parameters.dimension:
        raise InputError(
            f"{path} was measured on images of {parameters.dimension} real numbers, but the training images have {size}"
            f" ({' x '.join(map(str, shape))}); {ANEW}"
        )


def make_schedule(config: Mapping[str, Any], parameters: Parameters) -> Schedule:
    """The schedule of training noise levels. Values that are not in the config come from the dataset's parameters."""
    section = dict(config.get("schedule") or {"name": "geometric"})
    if section.get("count") == "automatic":  # technique 2
        section["count"] = parameters.levels
    names = ("sigma_min", "sigma_max", "noise_std", "dimension")
    measured = {name: value for name in names if (value := getattr(parameters, name)) is not None}
    return build("schedule", section, SCHEDULES, **measured)


def make_loss(config: Mapping[str, Any], parameters: Parameters) -> Loss:
    """The loss of a config, with its schedule. Errors: as in `build`."""
    schedule = make_schedule(config, parameters)
    return build("loss", config.get("loss") or {"name": "denoising"}, LOSSES, schedule=schedule)


def make_prior(config: Mapping[str, Any], parameters: Parameters) -> NetworkPrior:
    """A new network with its preconditioning; equal seeds give equal weights. Errors: as in `build`."""
    if parameters.sd is None:
        raise InputError("the parameters have no sd; measure them with: mri-score calibrate --config ...")
    torch.manual_seed(int(config.get("seed", 0)))
    section = config.get("prior") or {}
    schedule = make_schedule(config, parameters)
    known = {"sd": parameters.sd, "sigma_min": schedule.sigma_min, "sigma_max": schedule.sigma_max}
    arguments = dict(config.get("network") or {})
    for key, value in arguments.items():
        check_range("network", "network", key, value)
    require_size("the network of the config", arguments)
    network = build("network", config.get("network"), NETWORKS)
    if isinstance(network, UNet) and network.place is not None:
        _refuse_patches(config)
    kind = Generator if section.get("precondition") == GENERATOR else NetworkPrior
    return call("prior", kind, section, network=network, **known)


def _refuse_patches(config: Mapping[str, Any]) -> None:
    """Refuse network.position with patches or bands, whose positions in the image are not known to the network."""
    for section in ("data", "validation"):
        for key, what in (("patch", "patches"), ("band", "bands")):
            if (config.get(section) or {}).get(key) is not None:
                raise InputError(
                    f"network.position needs whole images, but {section}.{key} cuts {what}: remove {section}.{key},"
                    f" or first train on {what} without position, and continue with --from"
                )


def run(
    config: Mapping[str, Any],
    folder: Path,
    *,
    start: str | Path | None = None,
    device: str = "auto",
    quiet: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Train as described by a config, or resume the run in `folder`.

    config: as from `read_config`. folder: run folder for all output. start: prior to start from, a name, run folder or
    file. device: as in `find_device`. quiet: no progress bar. say: called with each note about the data.
    Errors: InputError for bad configs and data, Interrupted after SIGTERM or SIGINT.
    """
    options = training_options(config, device, quiet)  # before the data are read
    given, config = config, _caches_within(config, folder)
    source = make_source(config)
    for note in getattr(source, "notes", ()):
        say(note)
    parameters = find_parameters(config, lambda: source, folder, say)
    loss = make_loss(config, parameters)
    prior = make_prior(config, parameters)
    if start is not None:
        _start_from(prior, start)
    validation = None
    if config.get("validation"):
        size = options.batch_size
        held_out = Batches(make_source(config, "validation"), size, seed=1234)
        validation = [held_out[index] for index in range(max(1, VALIDATION_IMAGES // size))]
        if any(batch.image is None for batch in validation):
            raise InputError(
                "validation needs images, but its source has undersampled k-space only; use fastmri or images"
            )
    network = dict(config["network"])
    figures = Figures(folder, validation, source.values if isinstance(source, PlainImages) else PixelValues())
    facts = {"dataset": config["dataset"], **image_facts(source, parameters)}
    if getattr(source, "any_orientation", False) and not network.get("position"):
        facts["any_orientation"] = True

    def save(averaged: NetworkPrior, about: dict[str, Any], name: str = "prior") -> None:
        save_prior(folder / f"{name}.safetensors", averaged, network, {**facts, **about})

    with claimed(folder) if first_process() else nullcontext():
        _keep_config(given, folder)
        write_parameters(folder / "parameters.txt", parameters)
        train(prior, loss, source, folder, save, options, validation=validation, watch=figures.watch)


def image_facts(source: Source, parameters: Parameters) -> dict[str, Any]:
    """What the record of a prior says about its images: of real ones the map of their pixels and their mean, of
    simulated scans the laws and accelerations of their masks.
    """
    if isinstance(source, UndersampledImages):
        return {"scans": {"laws": list(source.laws), "accelerations": list(source.accelerations)}}
    if not isinstance(source, PlainImages):
        return {}
    mean = parameters.mean if parameters.channel_means is None else list(parameters.channel_means)
    return {"pixels": source.pixels, **({} if mean is None else {"mean": mean})}


def _caches_within(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The config with relative `cache` folders of its sections moved into the run folder."""
    found = dict(config)
    for section in ("data", "validation"):
        if isinstance(cache := (config.get(section) or {}).get("cache"), str):
            found[section] = {**config[section], "cache": str(folder / cache)}
    return found


def _start_from(prior: NetworkPrior, start: str | Path) -> None:
    """Copy the weights of another prior: of an equal network, or of a U-Net that this one contains.

    From a prior with two experts, the expert for the middle noise level of this run is tried first, then the other.
    Errors: InputError if no network fits.
    """
    given, network = load_prior(start).network, prior.network
    candidates = [given]
    if isinstance(given, Experts):
        middle = torch.tensor(math.sqrt(prior.sigma_min * prior.sigma_max))
        above = float(prior.coefficients(middle)[3]) > given.border
        candidates = [given.high, given.low] if above else [given.low, given.high]
    failures: list[RuntimeError] = []
    for candidate in candidates:
        try:
            if isinstance(network, UNet):
                network.grow_from(candidate.state_dict())
            else:
                network.load_state_dict(candidate.state_dict())
            return
        except RuntimeError as error:
            failures.append(error)
    raise InputError(
        f"--from {start}: its network is not the one of the config, nor one that it grows from ({failures[0]})"
    ) from failures[0]


def _keep_config(config: Mapping[str, Any], folder: Path) -> None:
    """Write config.yaml. Errors: InputError if a resumed run has another network, preconditioning or dataset."""
    path = folder / "config.yaml"
    if path.exists():
        before = read_config(path)
        changed = [key for key in ("network", "prior", "dataset") if before.get(key) != config.get(key)]
        if changed:
            raise InputError(
                f"{folder} has a run with another {', '.join(changed)}; give a new folder with --out, or remove it"
            )
    write_text(path, yaml.safe_dump(dict(config), sort_keys=False))
