"""Configs of score_sde_pytorch and of its rewrite: Python modules."""

from __future__ import annotations

import math
from typing import Any

from mri_score.migration.keys import Translator, number

IMAGES_OF = {"CIFAR10": 50_000, "CIFAR100": 50_000, "MNIST": 60_000, "CELEBA": 162_770, "FFHQ": 63_000}
"""Training images of public datasets, for configs that count epochs."""
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
UPSTREAM = {
    "seed": 42,
    "data": {
        "dataset": "CIFAR10",
        "image_size": 32,
        "num_channels": 3,
        "random_flip": True,
        "centered": False,
        "uniform_dequantization": False,
    },
    "model": {
        "sigma_min": 0.01,
        "sigma_max": 50,
        "num_scales": 1000,
        "beta_min": 0.1,
        "beta_max": 20.0,
        "dropout": 0.1,
        "embedding_type": "fourier",
    },
    "training": {"batch_size": 128, "n_iters": 1_300_001, "snapshot_freq": 50_000, "continuous": True},
    "sampling": {"n_steps_each": 1, "snr": 0.16},
    "optim": {
        "optimizer": "Adam",
        "lr": 2e-4,
        "weight_decay": 0,
        "beta1": 0.9,
        "eps": 1e-8,
        "warmup": 5000,
        "grad_clip": 1.0,
    },
}
"""The documented base config for CIFAR-10 of score_sde_pytorch, for a config module without it."""
PREDICTORS = {"euler_maruyama": "euler-maruyama", "ancestral_sampling": "ancestral"}
"""Our names of their predictors."""


class ScoreSDE(Translator):
    """NCSN++ and DDPM by the variance-exploding and variance-preserving processes."""

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
        least = number(take("model.sigma_min", "schedule.sigma_min", default=0.01), "sigma_min")
        most = number(take("model.sigma_max", "schedule.sigma_max", default=50), "sigma_max")
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
            if kind == "vp" and not continuous:
                first, last = (float(schedule[end]) / count for end in ("beta_min", "beta_max"))
                schedule = {"name": "ddpm", "count": count, "beta_first": first, "beta_last": last}
                precondition = "ddpm"
                if (count, first, last) != (1000, 1e-4, 0.02):
                    self.found.notes.append(
                        "the network's label is the step of 1,000 with betas from 0.0001 to 0.02 at the same sigma, not"
                        " that of this config: train with it, but do not import weights that were trained there"
                    )
        elif not continuous:
            schedule["count"] = count
        take("model.beta_min", lost="of variance-preserving noise")
        take("model.beta_max", lost="of variance-preserving noise")
        weighting = "likelihood" if take("training.likelihood_weighting", "loss.weighting", default=False) else "noise"
        self.sections(
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
            "dropout": number(take("model.dropout", "network.dropout", default=0.1), "dropout"),
            "fourier_scale": number(take("model.fourier_scale", "network.fourier_scale", default=16), "fourier_scale"),
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
        self.training(
            "", ema=number(take("model.ema_rate", "training.ema_decay", default=0.999), "ema_rate"), steps=steps
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
        images = take("sampling.total_samples", "-n")
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
        for key, place in (
            ("num_samples", "-n of fid"),
            ("batch_size", "--batch-size"),
            ("begin_ckpt", "fid --run scores every kept checkpoint"),
            ("end_ckpt", "fid --run scores every kept checkpoint"),
            ("enable_sampling", "the command fid"),
            ("enable_loss", "validation, in log.jsonl"),
            ("enable_bpd", "the command likelihood"),
            ("bpd_dataset", "IMAGES of likelihood"),
        ):
            take(f"eval.{key}", place)
        self.found.commands.append(f"mri-score train --config {self.path.stem}.yml")
        walk = "predictor-corrector" if corrector != "none" or predictor == "reverse_diffusion" else "ancestral"
        if walk == "ancestral" and self.config["prior"]["precondition"] == "ddpm":
            walk = "ddpm"
        text = f"mri-score sample -n {images or batch} --prior runs/{self.path.stem} --method {walk} --steps {steps}"
        text += f" --size {size}"
        if walk == "predictor-corrector":
            text += f" --set snr={snr} --batch-size {batch}"
            if corrector == "none" or corrections != 1:
                text += f" --set repeats={0 if corrector == 'none' else corrections}"
            if predictor != "reverse_diffusion":
                text += f" --set predictor={PREDICTORS.get(predictor, predictor)}"
        self.found.commands.append(text)
