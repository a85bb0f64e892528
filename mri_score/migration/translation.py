"""Configs of other projects in the words of this one, with what became of each key."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mri_score.errors import InputError
from mri_score.migration.published_configs import PublishedConfig
from mri_score.untrusted.text import read_text

SYSTEMS = ("score-diffusion-training", "ncsnv2", "ncsn", "csgm-mri-langevin", "score-sde")
IMAGES_OF = {"CIFAR10": 50_000, "CIFAR100": 50_000, "MNIST": 60_000, "CELEBA": 162_770, "FFHQ": 63_000}
"""Training images of public datasets, for configs that count epochs."""
NO_CLIPPING = 1.0e9
REWRITE = {
    "seed": 42,
    "data": {
        "name": "CIFAR10",
        "image_size": 32,
        "color_channels": 3,
        "num_workers": 4,
        "random_flip": True,
        "centered": False,
        "uniform_dequantization": False,
    },
    "model": {"sigma_min": 0.01, "sigma_max": 50, "num_scales": 1000, "dropout": 0.1, "embedding_type": "fourier"},
    "training": {"batch_size": 128, "brand_new_epochs": 2000, "snapshot_freq": 100, "use_all_data": False},
    "sampling": {"corrector_steps": 1, "snr": 0.16, "discretization_steps": 1000, "batch_size": 1000},
    "optim": {
        "optimizer": "Adam",
        "lr": 2e-4,
        "weight_decay": 0,
        "beta1": 0.9,
        "eps": 1e-8,
        "warmup": 2,
        "grad_clip": 1.0,
    },
}
"""The documented base config of the Score SDE rewrite, for a config module without it."""
DEPTHS = {"CIFAR10": "low", "CIFAR100": "low", "CELEBA": "low", "LSUN": "medium", "FFHQ": "large"}
"""Of NCSNv2's networks, by dataset: its code chooses them so."""


SAMPLING = {
    "target_model": "--prior",
    "sampling_file": "--out",
    "sampling_path": "--out",
    "channels": "-n of sample",
    "prior_sampling": "1 is the command sample, 0 reconstruct",
    "steps_each": "repeats of langevin",
    "step_size": "step_size of langevin, divided by sigma_min^2",
    "seed": "--seed",
    "snr_range": "--noise-std of reconstruct",
    "oracle_shape": "--size of sample",
    "image_size": "--size of sample",
    "sigma_offset": "sigma_start of the Python function reconstruct",
}
"""The keys of the sampling config of score-diffusion-training."""


@dataclass
class Translation:
    """A config of this project made from another one.

    system: one of SYSTEMS. config: sections and keys, as `config_file.read_config` gives them. became: (key, value,
    what it became) of each key that has a place; lost: (key, value, why it has none). commands: how to train, sample
    and reconstruct with it. notes: what to look at.
    """

    system: str
    config: dict[str, Any]
    became: list[tuple[str, Any, str]] = field(default_factory=list)
    lost: list[tuple[str, Any, str]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def is_foreign(sections: Mapping[str, Any], path: Path) -> bool:
    """Whether the sections of a config at `path` are those of another project, and not of this one."""
    return path.suffix in (".py", ".json") or _system(sections) is not None


def _system(sections: Mapping[str, Any]) -> str | None:
    """The project that a config is of, by its sections and keys."""
    if "langevin_config" in sections:
        return "csgm-mri-langevin"
    parts = {name: value for name, value in sections.items() if isinstance(value, Mapping)}
    model, data, training = (parts.get(name, {}) for name in ("model", "data", "training"))
    if "nf" in model or "ch_mult" in model or "sde_type" in model or "sde" in training:
        return "score-sde"
    if "dataloader" in data or "depth" in model:
        return "score-diffusion-training"
    if "algo" in training:
        return "ncsn"
    if "sigma_begin" in model:
        return "ncsnv2"
    return None


def translate(
    published: PublishedConfig, images: int | None = None, data: str | None = None, loader: str | None = None
) -> Translation:
    """The config of this project that trains what `published` describes, and what became of every key.

    images: number of training images, for configs that count epochs. data: file or folder of the training data.
    loader: module of the class that data.dataloader names. Errors: InputError for a config of an unknown project.
    """
    system = _system(published.sections)
    if system is None:
        raise InputError(
            f"{published.path} is no config of {', '.join(SYSTEMS)}: it has {', '.join(published.sections)}"
        )
    sections = published.sections
    if (
        system == "score-sde"
        and "color_channels" not in sections.get("data", {})
        and "num_channels" not in sections.get("data", {})
    ):
        published.notes.append("keys of its base config that it does not set have the documented values")
        sections = _merged(REWRITE, sections)
    keys = _Keys(sections)
    found = Translation(system, {}, notes=list(published.notes))
    try:
        _Translator(keys, found, published.path, images, data, loader).run()
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:  # values of another kind than documented
        raise InputError(f"{published.path} has a value that {system} does not document: {error}") from error
    found.became, found.lost = keys.became, keys.lost
    for key in sorted(keys.left()):
        found.lost.append((key, keys.values[key], "no key of the documented config"))
    return found


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in changes.items():
        old = found.get(key)
        found[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return found


class _Keys:
    """The keys of a config, `section.key`, each of which is to be accounted for."""

    def __init__(self, sections: Mapping[str, Any]) -> None:
        self.values = dict(_flat(sections))
        self.became: list[tuple[str, Any, str]] = []
        self.lost: list[tuple[str, Any, str]] = []

    def take(self, key: str, became: str = "", lost: str = "", default: Any = None) -> Any:
        """The value of a key, and a line on what became of it; the default where the config lacks it."""
        if key not in self.values:
            return default
        value = self.values[key]
        if key not in {one[0] for one in self.became + self.lost}:
            (self.lost if lost else self.became).append((key, value, lost or became))
        return value

    def left(self) -> set[str]:
        return set(self.values) - {one[0] for one in self.became + self.lost}


def _flat(sections: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in sections.items():
        if isinstance(value, Mapping):
            found.extend(_flat(value, f"{prefix}{key}."))
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _number(value: Any, key: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{key} is {value!r}; it must be a number") from error


class _Translator:
    """One pass for each project."""

    def __init__(
        self, keys: _Keys, found: Translation, path: Path, images: int | None, data: str | None, loader: str | None
    ) -> None:
        self.keys, self.found, self.path, self.images, self.given, self.loader = keys, found, path, images, data, loader
        self.config = found.config

    def run(self) -> None:
        run: dict[str, Callable[[], None]] = {
            "ncsnv2": self.ncsnv2,
            "ncsn": self.ncsn,
            "csgm-mri-langevin": self.csgm,
            "score-sde": self.score_sde,
            "score-diffusion-training": self.score_diffusion,
        }
        run[self.found.system]()

    # ---- ncsnv2, ncsn and the Langevin config of csgm-mri-langevin.

    def ncsnv2(self, prefix: str = "", seed: int = 1234) -> None:
        take = self.keys.take
        dataset, channels, size, centred = self._images(prefix)
        depth = DEPTHS.get(dataset.upper(), "large" if channels == 2 else "medium")
        width = take(f"{prefix}model.ngf", "network.width", default=128)
        network = {
            "name": "ncsnv2",
            "depth": depth,
            "width": width,
            "channels": channels,
            "published_input": not centred,
        }
        schedule = self._ladder(prefix)
        self._sections(seed, network, "ncsn", schedule, {"name": "denoising", "anneal_power": self._power(prefix)})
        averaged = take(f"{prefix}model.ema", "training.ema_decay: 0 if false", default=True)
        rate = take(f"{prefix}model.ema_rate", "training.ema_decay", default=0.999)
        self._training(prefix, ema=rate if averaged else 0.0)
        self._langevin(prefix, schedule, size)
        self._fixed(prefix)

    def ncsn(self) -> None:
        take = self.keys.take
        _, channels, size, centred = self._images("", dequantised=True)
        schedule = self._ladder("", begin=1.0, end=0.01, count=10)
        width = take("model.ngf", "network.width", default=128)
        network = {
            "name": "ncsn",
            "width": width,
            "channels": channels,
            "published_input": not centred,
            "levels": schedule["count"],
            "sigma_max": schedule["sigma_max"],
            "sigma_min": schedule["sigma_min"],
        }
        algo = take("training.algo", "loss.name: dsm is denoising, ssm is sliced", default="dsm")
        loss: dict[str, Any] = {"name": "denoising", "anneal_power": self._power("")}
        if algo == "ssm":
            probes = take(
                "training.n_particles",
                "loss.projections",
                default=take("model.n_particles", "loss.projections", default=1),
            )
            loss |= {"name": "sliced", "projections": probes, "probes": "gaussian"}
        elif algo != "dsm":
            raise InputError(f"{self.path}: training.algo is {algo!r}; known: dsm, ssm")
        self._sections(1234, network, "score", schedule, loss)
        self._training("", ema=0.0)
        take("training.n_particles", lost="projections of sliced score matching only")
        take("model.n_particles", lost="projections of sliced score matching only")
        take("training.noise_std", lost="of the energy networks of the paper's first figure, which are no priors")
        self._langevin("", schedule, size, step=2e-5, repeats=100)
        self._fixed("")

    def csgm(self) -> None:
        take, prefix = self.keys.take, "langevin_config."
        seed = take("seed", "seed; --seed of reconstruct", default=42)
        self.ncsnv2(prefix, seed)
        sampled = take("image_size", "data.size")
        self.config["data"]["size"] = [int(one) for one in sampled] if isinstance(sampled, list) else sampled
        scans = take(
            "input_dir", "SCANS of reconstruct", default=take("input_folder", "SCANS of reconstruct", default="SCANS")
        )
        parts = [f"mri-score reconstruct {scans}", f"--accel {take('R', '--accel', default=4)}"]
        pattern = take("pattern", "--mask", default="equispaced")
        parts.append(f"--mask {'poisson-disc' if str(pattern).startswith('poisson') else pattern}")
        if take("orientation", "--axis: vertical is -1, horizontal -2", default="vertical") == "horizontal":
            parts.append("--axis -2")
        if maps := take("maps_dir", "--maps"):
            parts.append(f"--maps {maps}")
        parts.append(f"--samples {take('repeat', '--samples', default=1)}")
        parts.append(f"--batch-size {take('batch_size', '--batch-size', default=1)}")
        parts.append(f"--method langevin-norm-matched --seed {seed}")
        take("mse", "weight of langevin-norm-matched (of the Python function reconstruct: options={'weight': ...})")
        take("start_iter", "start of the walk: sigma_start of the Python function reconstruct")
        take("n_steps_each", "repeats of langevin-norm-matched")
        take("step_lr", "step_size of langevin-norm-matched, divided by sigma_min^2")
        checkpoint = take("gen_ckpt", "FILE of import-checkpoint", default="checkpoint_100000.pth")
        prior = f"priors/{self.config['dataset']}.safetensors"
        parts.append(f"--prior {prior}")
        self.found.commands[:0] = [f"mri-score import-checkpoint {checkpoint} --out {prior}", " ".join(parts)]
        for key, reason in {
            "user": "names an account of its log",
            "model_type": "always NCSNv2",
            "device": "--device",
            "exp_name": "--out",
            "exp_names": "--out",
            "raw_dir": "the reader finds k-space in SCANS",
            "mvue_dir": "the truth is made from the scan",
            "is_knees": "the reader tells from the header",
            "is_stanford_knees": "the reader tells from the header",
            "is_abdomen": "the reader tells from the header",
            "anatomy": "the reader tells from the header",
            "no_maps": "maps are estimated where none are given",
            "save_latent": "--keep-samples",
            "save_images": "panels are always written",
            "save_dataloader_every": "nothing to save",
            "save_iter": "intermediate images are not written",
            "debug": "--verbose",
            "world_size": "--shard",
            "multiprocessing": "--shard",
            "port": "--shard",
        }.items():
            if reason.startswith("--"):
                take(key, reason)
            else:
                take(key, lost=reason)

    def _images(self, prefix: str, dequantised: bool = False) -> tuple[str, int, int | None, bool]:
        """Write the section data; the dataset, its channels and size, and whether x is taken as it is."""
        take = self.keys.take
        dataset = str(take(f"{prefix}data.dataset", "dataset; data.paths", default="images"))
        channels = int(take(f"{prefix}data.channels", "data.channels and network.channels", default=3))
        size = take(f"{prefix}data.image_size", "data.size")
        category = take(f"{prefix}data.category", "dataset", default="")
        flip = take(f"{prefix}data.random_flip", "data.flip", default=False)
        logit = bool(take(f"{prefix}data.logit_transform", "data.logit", default=False))
        rescaled = bool(take(f"{prefix}data.rescaled", "data.centred", default=False))
        uniform = take(f"{prefix}data.uniform_dequantization", "data.dequantisation: uniform", default=dequantised)
        gaussian = take(f"{prefix}data.gaussian_dequantization", "data.dequantisation: gaussian", default=False)
        name = "_".join(part for part in (dataset.lower().replace("-", "_"), str(category)) if part)
        self.config["dataset"] = name
        paths = [self.given or f"data/{name}"]
        if channels == 2:
            self.config["data"] = {"name": "fastmri", "paths": paths, **({"size": size} if size else {})}
            if not flip:
                self.config["data"]["augment"] = False
        else:
            kind = "uniform" if uniform else "gaussian" if gaussian else "none"
            self.config["data"] = {
                "name": "plain_images",
                "paths": paths,
                "channels": channels,
                **({"size": size} if size else {}),
                **({"crop": 140} if dataset.upper() == "CELEBA" else {}),
                "flip": bool(flip),
                "dequantisation": kind,
                "centred": rescaled,
                "logit": logit,
            }
        if self.given is None:
            self.found.notes.append(f"data.paths is a guess, {paths[0]}: give your own, by --data")
        return dataset, channels, size, rescaled or logit

    def _ladder(
        self, prefix: str, begin: float | None = None, end: float = 0.01, count: int | None = None
    ) -> dict[str, Any]:
        take = self.keys.take
        kind = take(f"{prefix}model.sigma_dist", "schedule.name", default="geometric")
        schedule: dict[str, Any] = {
            "name": kind,
            "sigma_min": _number(take(f"{prefix}model.sigma_end", "schedule.sigma_min", default=end), "sigma_end"),
        }
        if (most := take(f"{prefix}model.sigma_begin", "schedule.sigma_max", default=begin)) is not None:
            schedule["sigma_max"] = _number(most, "sigma_begin")
        if (levels := take(f"{prefix}model.num_classes", "schedule.count", default=count)) is not None:
            schedule["count"] = int(levels)
        return schedule

    def _power(self, prefix: str) -> float:
        return _number(
            self.keys.take(f"{prefix}training.anneal_power", "loss.anneal_power", default=2.0), "anneal_power"
        )

    def _sections(self, seed: int, network: dict, precondition: str, schedule: dict, loss: dict) -> None:
        given = {"seed": seed, "dataset": self.config.get("dataset"), "data": self.config.get("data")}
        given |= {"network": network, "prior": {"precondition": precondition}, "schedule": schedule, "loss": loss}
        self.config.clear()
        self.config.update(given)

    def _training(self, prefix: str, ema: float, steps: int | None = None) -> None:
        take = self.keys.take
        optimiser = take(f"{prefix}optim.optimizer", "Adam is the optimiser", default="Adam")
        if optimiser != "Adam":
            self.found.notes.append(f"optim.optimizer is {optimiser}; training here uses Adam")
        for key, default in (("weight_decay", 0), ("amsgrad", False)):
            if take(f"{prefix}optim.{key}", lost=f"training has none, which is {default}", default=default):
                self.found.notes.append(f"optim.{key} is not {default}; training here has none")
        training: dict[str, Any] = {
            "steps": int(steps or take(f"{prefix}training.n_iters", "training.steps", default=200_000)),
            "batch_size": int(take(f"{prefix}training.batch_size", "training.batch_size", default=128)),
            "learning_rate": _number(take(f"{prefix}optim.lr", "training.learning_rate", default=1e-4), "optim.lr"),
            "warmup": int(take(f"{prefix}optim.warmup", "training.warmup", default=0)),
            "decay": 0.0,
            "betas": [_number(take(f"{prefix}optim.beta1", "training.betas", default=0.9), "optim.beta1"), 0.999],
            "epsilon": _number(take(f"{prefix}optim.eps", "training.epsilon", default=1e-8), "optim.eps"),
            "clip": _number(take(f"{prefix}optim.grad_clip", "training.clip", default=NO_CLIPPING), "grad_clip"),
            "ema_decay": _number(ema, "ema_rate"),
            "workers": int(take(f"{prefix}data.num_workers", "training.workers", default=4)),
            "save_every": int(take(f"{prefix}training.snapshot_freq", "training.save_every", default=5000)),
        }
        if training["clip"] <= 0:
            training["clip"] = NO_CLIPPING
        take(f"{prefix}training.n_epochs", lost="training ends after n_iters steps, which come first")
        take(f"{prefix}training.snapshot_sampling", "samples at each checkpoint are always written: figures/")
        take(f"{prefix}training.log_all_sigmas", "the validation error of several levels is in log.jsonl")
        self.config["training"] = training

    def _langevin(self, prefix: str, schedule: dict, size: Any, step: float = 0.0, repeats: int = 3) -> None:
        """The commands of the sections sampling, fast_fid and test."""
        take = self.keys.take
        own = f"{prefix}sampling."
        least = schedule["sigma_min"]
        step = _number(
            take(f"{own}step_lr", "--set step_size, divided by sigma_min^2", default=step or 0.1 * least**2), "step_lr"
        )
        repeats = int(take(f"{own}n_steps_each", "--set repeats", default=repeats))
        number = take(f"{own}batch_size", "-n of sample", default=16)
        take(f"{own}denoise", "--set denoise; true by default", default=True)
        run = f"runs/{self.path.stem}"
        walk = f"--prior {run} --method langevin --steps {schedule.get('count', 200)} --set repeats={repeats}"
        walk += f" --set step_size={step / least**2:.6g}"
        walk += f" --size {size}" if isinstance(size, int) else ""
        self.found.commands.append(f"mri-score train --config {self.path.stem}.yml")
        self.found.commands.append(f"mri-score sample -n {number} {walk}")
        take(f"{own}ckpt_id", "training.keep_every; --prior RUN/kept/...")
        take(f"{own}final_only", lost="intermediate levels are not written")
        take(f"{own}data_init", lost="walks start from noise of sigma_max")
        if take(f"{own}inpainting", "sample --inpaint"):
            self.found.commands.append(f"mri-score sample {walk} --inpaint IMAGE --keep MASK")
        count = take(f"{own}n_interpolations", "sample --interpolate", default=8)
        if take(f"{own}interpolation", "sample --interpolate"):
            self.found.commands.append(f"mri-score sample --prior {run} --interpolate {count}")
        if take(f"{own}fid", "the command fid"):
            self.found.commands.append(f"mri-score fid {run}")
        take(f"{own}num_samples4fid", "-n of sample")
        for key in ("batch_size", "num_samples", "step_lr", "n_steps_each", "begin_ckpt", "end_ckpt", "verbose"):
            take(f"{prefix}fast_fid.{key}", "the command fid, over the checkpoints that training.keep_every keeps")
        take(f"{prefix}fast_fid.ensemble", lost="its author advises against it")
        for key in ("begin_ckpt", "end_ckpt", "batch_size"):
            take(f"{prefix}test.{key}", "the section validation, at each checkpoint")

    def _fixed(self, prefix: str) -> None:
        """Options of which there is one value."""
        take = self.keys.take
        for key, known in (("normalization", ("InstanceNorm++",)), ("nonlinearity", ("elu",))):
            value = take(f"{prefix}model.{key}", "the network has it")
            if value is not None and value not in known:
                self.found.notes.append(f"model.{key} is {value}; the network has {known[0]}")
        take(f"{prefix}model.spec_norm", lost="no network of the release uses it")
        take(f"{prefix}model.batch_norm", lost="no network of the release uses it")
        take(f"{prefix}model.type", lost="its network follows from the dataset")

    # ---- score-diffusion-training.

    def score_diffusion(self) -> None:
        take = self.keys.take
        name = str(take("data.file", "dataset: parameters/<file>.txt", default="scans"))
        channels = int(take("data.channels", "network.channels", default=2) or 2)
        depth = take("model.depth", "network.depth", default="large")
        width = int(take("model.ngf", "network.width", default=128))
        loss_name = str(take("model.loss", "loss.name", default="anneal_dsm_score_estimation"))
        noise_std = take("data.noise_std", "data.noise_std")
        schedule = self._sure_levels(name, noise_std)
        network = {"name": "ncsnv2", "depth": depth, "width": width, "channels": channels, "published_input": True}
        self.config["dataset"] = name
        self._own_data(noise_std, loss_name)
        weight = _number(take("training.score_wt", "loss.score_weight", default=1.0) or 1.0, "score_wt")
        loss = self._sure_loss(loss_name, weight)
        epochs = take("training.n_epochs", "training.steps", default=1)
        batch = int(take("training.batch_size", "training.batch_size", default=1))
        if self.images is None:
            self.found.notes.append("training.n_epochs counts passes over the data: give their number, by --images")
        a_pass = max(1, (self.images or 1000) // batch)
        if loss["name"] == "sure_score":
            loss["rise"] = a_pass
        self._sections(int(take("training.seed", "seed", default=0) or 0), network, "ncsn", schedule, loss)
        self.config["training"] = {
            "steps": int(epochs) * a_pass,
            "batch_size": batch,
            "learning_rate": 1e-4,
            "warmup": 0,
            "decay": 0.0,
            "betas": [0.9, 0.999],
            "epsilon": 1e-3,
            "clip": NO_CLIPPING,
            "ema_decay": 0.999,
            "workers": 8,
            "save_every": max(1, min(100, int(epochs)) * a_pass),
        }
        take("model.gpu", "--device")
        take("training.X_label", lost="a clean image for its printed errors; the section validation has such a role")
        for key in SAMPLING:
            take(f"sampling.{key}", SAMPLING[key])
        for key in ("noise_boost", "dc_boost"):
            take(f"sampling.{key}", lost="walks draw exactly the noise of their levels")
        take("sampling.forward_class", lost="the forward model is made from the scan")
        flag = " --allow-code" if ":" in str(self.config["data"]["name"]) else ""
        self.found.commands.append(f"mri-score train --config {self.path.stem}.yml{flag}")
        self.found.commands.append(f"mri-score sample --prior runs/{self.path.stem} --method langevin")
        self.found.commands.append(f"mri-score reconstruct SCANS --prior runs/{self.path.stem} --method langevin")

    def _own_data(self, noise_std: Any, loss: str) -> None:
        take = self.keys.take
        loader = take("data.dataloader", "data.name: a class of yours, allowed by --allow-code")
        path = take("data.path", "data.paths", default="")
        key = take("training.X_train", "data.key, the entry of a sample to train on")
        take("training.div", "loss.step: HS is exact products, any other finite differences")
        noisy = {"noise_std": _number(noise_std, "data.noise_std")} if noise_std and "sure" in loss else {}
        if loader and self.given is None:
            own = f"{self.loader or 'loaders'}:{loader}"
            given = {"data": {"path": path, "file": self.config["dataset"]}, "training": {"X_train": key}}
            if noise_std:
                given["data"]["noise_std"] = noise_std
            self.config["data"] = {"name": own, **({"key": key} if key else {}), **noisy, "config": given}
            self.found.notes.append(f"data.name is {own}: train with --allow-code, or give files of scans, by --data")
        else:
            self.config["data"] = {"name": "fastmri", "paths": [self.given or path or "data/scans"], **noisy}

    def _sure_levels(self, name: str, noise_std: Any) -> dict[str, Any]:
        """The schedule: a number or a function for its ratio, and where sigma_begin comes from."""
        take = self.keys.take
        count = int(take("model.num_classes", "schedule.count", default=2311))
        rate = take("model.sigma_rate", "schedule: the ratio of its levels")
        function = take("model.get_sigmas", "schedule.name: get_sigmas_sure is above-noise")
        end = take("model.sigma_end", "schedule.sigma_min")
        begin = take("model.sigma_begin", "schedule.sigma_max")
        if "sure" in str(rate) or "sure" in str(function):
            if not noise_std:
                raise InputError(f"{self.path}: sigma_rate_sure needs data.noise_std, the noise of the training images")
            return {"name": "above-noise", "count": count, "noise_std": _number(noise_std, "data.noise_std")}
        schedule: dict[str, Any] = {"name": "geometric", "count": count}
        kept = self.path.parent / "parameters" / f"{name}.txt"
        if begin:
            schedule["sigma_max"] = _number(begin, "sigma_begin")
        elif kept.is_file():
            self.found.notes.append(f"sigma_max is that of {kept}; copy it to parameters/ where you train")
        if end:
            schedule["sigma_min"] = _number(end, "sigma_end")
        elif isinstance(rate, (int, float)) and 0 < rate < 1:
            most = schedule.get("sigma_max") or _bare(kept)
            if most:
                schedule["sigma_min"] = float(f"{most * rate ** (count - 1):.6g}")
            else:
                self.found.notes.append(
                    f"sigma_end is sigma_begin {rate}^{count - 1}, but no sigma_begin is known: set schedule.sigma_min"
                )
        if isinstance(rate, str):
            self.found.notes.append(
                "sigma_rate: the ratio follows from the count and both ends; count: automatic is technique 2"
            )
        return schedule

    def _sure_loss(self, name: str, weight: float) -> dict[str, Any]:
        exact = self.keys.values.get("training.div") == "HS"
        step: dict[str, Any] = {"step": None} if exact else {}
        losses: dict[str, dict[str, Any]] = {
            "anneal_dsm_score_estimation": {"name": "denoising", "anneal_power": 2.0},
            "vanilla_sure_loss": {"name": "sure", "score_weight": 0.0, **step},
            "single_network_sure": {"name": "sure_score", "published": True, "score_weight": weight, **step},
            "gsure_loss": {"name": "gsure", "score_weight": 0.0, **step},
            "gsure_single_network": {"name": "gsure", "score_weight": weight, **step},
        }
        if name in losses:
            return losses[name]
        others = (
            "lr_single_network_sure",
            "lr_yonina_gsure_loss",
            "lr_yonina_gsure_loss_cmplx",
            "metzler_fr_gsure_loss",
        )
        if name in others:
            self.found.notes.append(f"model.loss {name} is a form of GSURE: loss gsure, in the samples of k-space")
            return {"name": "gsure", "score_weight": weight, **step}
        if name == "gsure_supervised":
            self.found.notes.append("model.loss gsure_supervised is a regression of clean images: loss denoising")
            return {"name": "denoising", "anneal_power": 2.0}
        raise InputError(
            f"{self.path}: model.loss is {name!r}; known: {', '.join([*losses, *others, 'gsure_supervised'])}"
        )

    # ---- Score SDE and its rewrite.

    def score_sde(self) -> None:
        take = self.keys.take
        dataset = str(
            take(
                "data.name",
                "dataset; data.paths",
                default=take("data.dataset", "dataset; data.paths", default="CIFAR10"),
            )
        )
        channels = int(
            take(
                "data.color_channels",
                "data.channels and network.channels",
                default=take("data.num_channels", "data.channels and network.channels", default=3),
            )
        )
        size = int(take("data.image_size", "data.size", default=32))
        flip = bool(take("data.random_flip", "data.flip", default=True))
        centred = bool(take("data.centered", "data.centred", default=False))
        uniform = bool(take("data.uniform_dequantization", "data.dequantisation", default=False))
        name = dataset.lower()
        paths = [self.given or f"data/{name}"]
        if self.given is None:
            self.found.notes.append(f"data.paths is a guess, {paths[0]}: give your own, by --data")
        self.config["dataset"] = name
        self.config["data"] = {
            "name": "plain_images",
            "paths": paths,
            "channels": channels,
            "size": size,
            "flip": flip,
            "centred": centred,
            "dequantisation": "uniform" if uniform else "none",
        }
        network = self._ncsnpp(channels, size, centred)
        least = _number(take("model.sigma_min", "schedule.sigma_min", default=0.01), "sigma_min")
        most = _number(take("model.sigma_max", "schedule.sigma_max", default=50), "sigma_max")
        sde = str(
            take(
                "model.sde_type",
                "schedule.name and prior.precondition",
                default=take("training.sde", "schedule.name and prior.precondition", default="vesde"),
            )
        ).lower()
        scaled = take("model.scale_by_sigma", "prior.precondition", default=True)
        continuous = take(
            "model.continuous",
            "schedule.count: none",
            default=take("training.continuous", "schedule.count: none", default=True),
        )
        count = int(take("model.num_scales", "schedule.count of discrete training; --steps of sample", default=1000))
        schedule: dict[str, Any] = {"name": "geometric", "sigma_min": least, "sigma_max": most}
        precondition = "ncsn" if scaled else "score"
        if sde in ("vpsde", "subvpsde"):
            kind = "vp" if sde == "vpsde" else "sub-vp"
            schedule = {
                "name": kind,
                "beta_min": take("model.beta_min", "schedule.beta_min", default=0.1),
                "beta_max": take("model.beta_max", "schedule.beta_max", default=20.0),
                "t_min": 1e-3,
            }
            precondition = kind
        elif not continuous:
            schedule["count"] = count
        take("model.beta_min", lost="of variance-preserving noise")
        take("model.beta_max", lost="of variance-preserving noise")
        weighting = "likelihood" if take("training.likelihood_weighting", "loss.weighting", default=False) else "noise"
        self._sections(
            int(take("seed", "seed", default=42)),
            network,
            precondition,
            schedule,
            {"name": "denoising", "weighting": weighting},
        )
        self._epochs(dataset)
        self._pc(count, size)

    def _ncsnpp(self, channels: int, size: int, centred: bool) -> dict[str, Any]:
        take = self.keys.take
        multipliers = [int(one) for one in take("model.ch_mult", "network.multipliers", default=[1, 2, 2, 2])]
        sides = take("model.attn_resolutions", "network.attention, as levels", default=[16])
        fir = take("model.fir_kernel", "network.fir", default=[1, 3, 3, 1])
        network = {
            "name": "ncsnpp",
            "width": int(take("model.nf", "network.width", default=128)),
            "multipliers": multipliers,
            "blocks": int(take("model.num_res_blocks", "network.blocks", default=4)),
            "attention": [level for level in range(len(multipliers)) if size >> level in sides],
            "block": str(take("model.resblock_type", "network.block", default="biggan")).lower(),
            "fir": [float(one) for one in fir] if take("model.fir", "network.fir", default=True) else [],
            "resample_conv": bool(take("model.resamp_with_conv", "network.resample_conv", default=True)),
            "embedding": str(take("model.embedding_type", "network.embedding", default="fourier")).lower(),
            "conditional": bool(take("model.conditional", "network.conditional", default=True)),
            "progressive": str(take("model.progressive", "network.progressive", default="none")).lower(),
            "progressive_input": str(
                take("model.progressive_input", "network.progressive_input", default="residual")
            ).lower(),
            "combine": str(take("model.progressive_combine", "network.combine", default="sum")).lower(),
            "skip_rescale": bool(take("model.skip_rescale", "network.skip_rescale", default=True)),
            "dropout": _number(take("model.dropout", "network.dropout", default=0.1), "dropout"),
            "fourier_scale": _number(take("model.fourier_scale", "network.fourier_scale", default=16), "fourier_scale"),
            "channels": channels,
            "published_input": not centred,
        }
        kind = str(take("model.name", "network.name", default="ncsnpp"))
        if kind == "ddpm":
            network |= {
                "block": "ddpm",
                "fir": [],
                "embedding": "positional",
                "progressive_input": "none",
                "skip_rescale": False,
            }
        elif kind != "ncsnpp":
            self.found.notes.append(f"model.name is {kind}; its network is taken for NCSN++")
        if network["embedding"] == "positional" and "vp" not in str(
            self.keys.values.get("training.sde", self.keys.values.get("model.sde_type", ""))
        ):
            network |= {
                "levels": int(self.keys.values.get("model.num_scales", 1000)),
                "sigma_max": float(self.keys.values.get("model.sigma_max", 50)),
                "sigma_min": float(self.keys.values.get("model.sigma_min", 0.01)),
            }
        for key, known in (
            ("normalization", "GroupNorm"),
            ("nonlinearity", "swish"),
            ("attention_type", "ddpm"),
            ("conv_size", 3),
            ("init_scale", 0.0),
        ):
            value = take(f"model.{key}", "the network has it")
            if value is not None and value != known:
                self.found.notes.append(f"model.{key} is {value}; the network has {known}")
        return network

    def _epochs(self, dataset: str) -> None:
        take = self.keys.take
        whole = bool(take("training.use_all_data", "data.paths: with the test images", default=False))
        count = self.images or IMAGES_OF.get(dataset.upper(), 50_000) + (10_000 if whole else 0)
        batch = int(take("training.batch_size", "training.batch_size", default=128))
        a_pass = math.ceil(count / batch)
        epochs = take("training.brand_new_epochs", "training.steps, one pass being images / batch_size steps")
        steps = int(epochs) * a_pass if epochs else None
        every = take("training.snapshot_freq", "training.save_every", default=100)
        warmup = int(take("optim.warmup", "training.warmup", default=0))
        self._training(
            "", ema=_number(take("model.ema_rate", "training.ema_decay", default=0.999), "ema_rate"), steps=steps
        )
        training = self.config["training"]
        training["warmup"] = warmup * a_pass if epochs else warmup
        training["save_every"] = int(every) * a_pass if epochs else int(every)
        take("training.continue_training_epochs", "--set training.steps=... on a run that ended")
        take("training.snapshot_batch_size", lost="the grid of samples has a fixed size")
        take("training.snapshot_freq_for_preemption", lost="each checkpoint is one")
        take("training.log_freq", "training.log_every")
        take("training.eval_freq", "validation, at each checkpoint")
        take("training.eval_save_least_epoch", lost="every checkpoint is validated")
        take("training.best_evaluate_loss", lost="the best step is read from log.jsonl")
        take("training.reduce_mean", lost="losses are means over the components: the same gradient but for a factor")
        take("training.eps", "the schedule's end")
        for key in ("training.device", "model.device", "sampling.device", "device"):
            take(key, "--device")

    def _pc(self, count: int, size: int) -> None:
        take = self.keys.take
        steps = int(take("sampling.discretization_steps", "--steps", default=count))
        snr = take("sampling.snr", "--set snr", default=0.16)
        corrections = take(
            "sampling.corrector_steps",
            "--set repeats",
            default=take("sampling.n_steps_each", "--set repeats", default=1),
        )
        number = take("sampling.total_samples", "-n")
        batch = take("sampling.batch_size", "--batch-size", default=16)
        predictor = take("sampling.predictor", "--set predictor", default="reverse_diffusion")
        corrector = take("sampling.corrector", "--method predictor-corrector", default="langevin")
        take("sampling.method", "--method")
        take("sampling.noise_removal", "walks end with the denoised image")
        take("sampling.eps", "the schedule's end")
        take("sampling.probability_flow", "--method rk45 or heun")
        take("sampling.record_freq", lost="intermediate levels are not written")
        take("sampling.eval", "the command fid")
        take("model.discretization_steps", "--steps")
        self.found.commands.append(f"mri-score train --config {self.path.stem}.yml")
        walk = "predictor-corrector" if corrector != "none" or predictor == "reverse_diffusion" else "ancestral"
        text = f"mri-score sample -n {number or batch} --prior runs/{self.path.stem} --method {walk} --steps {steps}"
        text += f" --size {size}"
        if walk == "predictor-corrector":
            text += f" --set snr={snr} --batch-size {batch}"
            if corrector == "none" or corrections != 1:
                text += f" --set repeats={0 if corrector == 'none' else corrections}"
            if predictor != "reverse_diffusion":
                text += f" --set predictor={_PREDICTORS.get(predictor, predictor)}"
        self.found.commands.append(text)


_PREDICTORS = {"euler_maruyama": "euler-maruyama", "ancestral_sampling": "ancestral"}


def _bare(path: Path) -> float | None:
    """The sigma_max in a file of parameters, or None."""
    if not path.is_file():
        return None
    words = [line.partition("#")[0].split() for line in read_text(path, 1 << 16).splitlines()]
    given = next((line[-1] for line in words if line and (len(line) == 1 or line[0] == "sigma_max")), None)
    return None if given is None else _number(given, f"sigma_max in {path}")
