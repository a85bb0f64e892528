"""Configs of score-diffusion-training and of its sampling repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mri_score.errors import InputError
from mri_score.migration.keys import NO_CLIPPING, Translator, number
from mri_score.untrusted.text import read_text

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
    "sigma_offset": "--warm-start of reconstruct",
}
"""The keys of the sampling config of score-diffusion-training."""


class ScoreDiffusion(Translator):
    """Training by denoising score matching, SURE and its relatives; a JSON file."""

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
        weight = number(take("training.score_wt", "loss.score_weight", default=1.0) or 1.0, "score_wt")
        loss = self._sure_loss(loss_name, weight)
        epochs = take("training.n_epochs", "training.steps", default=1)
        batch = int(take("training.batch_size", "training.batch_size", default=1))
        if self.images is None:
            self.found.notes.append("training.n_epochs counts passes over the data: give their number, by --images")
        a_pass = max(1, (self.images or 1000) // batch)
        if loss["name"] == "sure_score":
            loss["rise"] = a_pass
        self.sections(int(take("training.seed", "seed", default=0) or 0), network, "ncsn", schedule, loss)
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
        noisy = {"noise_std": number(noise_std, "data.noise_std")} if noise_std and "sure" in loss else {}
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
            return {"name": "above-noise", "count": count, "noise_std": number(noise_std, "data.noise_std")}
        schedule: dict[str, Any] = {"name": "geometric", "count": count}
        kept = self.path.parent / "parameters" / f"{name}.txt"
        if begin:
            schedule["sigma_max"] = number(begin, "sigma_begin")
        elif kept.is_file():
            self.found.notes.append(f"sigma_max is that of {kept}; copy it to parameters/ where you train")
        if end:
            schedule["sigma_min"] = number(end, "sigma_end")
        elif isinstance(rate, (int, float)) and 0 < rate < 1:
            most = schedule.get("sigma_max") or bare(kept)
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


def bare(path: Path) -> float | None:
    """The sigma_max in a file of parameters, or None."""
    if not path.is_file():
        return None
    words = [line.partition("#")[0].split() for line in read_text(path, 1 << 16).splitlines()]
    given = next((line[-1] for line in words if line and (len(line) == 1 or line[0] == "sigma_max")), None)
    return None if given is None else number(given, f"sigma_max in {path}")
