"""Configs of ncsnv2, ncsn and csgm-mri-langevin, whose training sections have the same keys."""

from __future__ import annotations

from typing import Any

from mri_score.errors import InputError
from mri_score.migration.keys import Translator, number

DEPTHS = {"CIFAR10": "low", "CIFAR100": "low", "CELEBA": "low", "LSUN": "medium", "FFHQ": "large"}
"""Of NCSNv2's networks, by dataset: its code chooses them so."""


class NCSNFamily(Translator):
    """One method for each of the three projects."""

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
        self.sections(seed, network, "ncsn", schedule, {"name": "denoising", "anneal_power": self._power(prefix)})
        averaged = take(f"{prefix}model.ema", "training.ema_decay: 0 if false", default=True)
        rate = take(f"{prefix}model.ema_rate", "training.ema_decay", default=0.999)
        self.training(prefix, ema=rate if averaged else 0.0)
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
        self.sections(1234, network, "score", schedule, loss)
        self.training("", ema=0.0)
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
        take("start_iter", lost="walks start at sigma 5; --warm-start of reconstruct starts lower, about CG-SENSE")
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
            "sigma_min": number(take(f"{prefix}model.sigma_end", "schedule.sigma_min", default=end), "sigma_end"),
        }
        if (most := take(f"{prefix}model.sigma_begin", "schedule.sigma_max", default=begin)) is not None:
            schedule["sigma_max"] = number(most, "sigma_begin")
        if (levels := take(f"{prefix}model.num_classes", "schedule.count", default=count)) is not None:
            schedule["count"] = int(levels)
        return schedule

    def _power(self, prefix: str) -> float:
        return number(
            self.keys.take(f"{prefix}training.anneal_power", "loss.anneal_power", default=2.0), "anneal_power"
        )

    def _langevin(self, prefix: str, schedule: dict, size: Any, step: float = 0.0, repeats: int = 3) -> None:
        """The commands of the sections sampling, fast_fid and test."""
        take = self.keys.take
        own = f"{prefix}sampling."
        least = schedule["sigma_min"]
        step = number(
            take(f"{own}step_lr", "--set step_size, divided by sigma_min^2", default=step or 0.1 * least**2), "step_lr"
        )
        repeats = int(take(f"{own}n_steps_each", "--set repeats", default=repeats))
        images = take(f"{own}batch_size", "-n of sample", default=16)
        take(f"{own}denoise", "--set denoise; true by default", default=True)
        run = f"runs/{self.path.stem}"
        walk = f"--prior {run} --method langevin --steps {schedule.get('count', 200)} --set repeats={repeats}"
        walk += f" --set step_size={step / least**2:.6g}"
        walk += f" --size {size}" if isinstance(size, int) else ""
        self.found.commands.append(f"mri-score train --config {self.path.stem}.yml")
        self.found.commands.append(f"mri-score sample -n {images} {walk}")
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
