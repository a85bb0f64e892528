"""Configs of other projects: every key is accounted for, and what they become trains and samples."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from mri_score import experiment
from mri_score.cli import main
from mri_score.errors import InputError
from mri_score.migration.published_configs import read_published_config
from mri_score.migration.translation import translate
from mri_score.noise.parameters import read_parameters
from mri_score.settings.merged import merged_settings

NCSNV2 = """
training: {batch_size: 2, n_epochs: 500000, n_iters: 3, snapshot_freq: 2, snapshot_sampling: true, anneal_power: 2,
  log_all_sigmas: false}
sampling: {batch_size: 2, data_init: false, step_lr: 0.0002, n_steps_each: 2, ckpt_id: 5000, final_only: true,
  fid: false, denoise: true, num_samples4fid: 10000, inpainting: false, interpolation: true, n_interpolations: 3}
fast_fid: {batch_size: 1000, num_samples: 1000, step_lr: 6.2e-6, n_steps_each: 5, begin_ckpt: 5000, end_ckpt: 300000,
  verbose: false, ensemble: false}
test: {begin_ckpt: 5000, end_ckpt: 300000, batch_size: 100}
data: {dataset: "CIFAR10", image_size: 16, channels: 3, logit_transform: false, uniform_dequantization: true,
  gaussian_dequantization: false, random_flip: true, rescaled: false, num_workers: 0}
model: {sigma_begin: 5, num_classes: 6, ema: true, ema_rate: 0.99, spec_norm: false, sigma_dist: geometric,
  sigma_end: 0.05, normalization: InstanceNorm++, nonlinearity: elu, ngf: 4}
optim: {weight_decay: 0.000, optimizer: "Adam", lr: 1e-4, beta1: 0.9, amsgrad: false, eps: 0.00000001}
"""
NCSN = """
training: {batch_size: 2, n_epochs: 500000, n_iters: 3, snapshot_freq: 2, algo: "ssm", anneal_power: 2.0}
data: {dataset: "MNIST", image_size: 16, channels: 1, logit_transform: false, random_flip: false, num_workers: 0}
model: {sigma_begin: 1, sigma_end: 0.01, num_classes: 4, batch_norm: false, ngf: 4}
optim: {weight_decay: 0.0, optimizer: "Adam", lr: 0.001, beta1: 0.9, amsgrad: false}
"""
TRAINING = {
    "model": {"loss": "single_network_sure", "depth": "low", "gpu": 0, "ngf": 4, "num_classes": 8,
              "sigma_rate": "sigma_rate_sure", "get_sigmas": "get_sigmas_sure"},
    "data": {"dataloader": "Heads", "file": "heads", "path": "somewhere", "channels": 2, "noise_std": 0.05},
    "training": {"batch_size": 2, "n_epochs": 1, "X_train": "X", "X_label": "clean", "seed": 3, "score_wt": 0.5,
                 "div": "fd"},
}  # fmt: skip
LOADER = """
import torch

class Heads(torch.utils.data.Dataset):
    def __init__(self, config):
        assert config.data.file == "heads" and config.training.X_train == "X" and not config.data.absent
        torch.manual_seed(1)
        self.channels = torch.randn(6, 2, 16, 16)

    def __len__(self):
        return len(self.channels)

    def __getitem__(self, number):
        return {"X": self.channels[number], "sigma_w": torch.tensor(0.05)}
"""
LANGEVIN = """
user: someone
seed: 42
device: cuda
batch_size: 1
repeat: 2
gen_ckpt: logs/mri-mvue/checkpoint_100000.pth
mse: 5.
image_size: [16, 16]
input_dir: ./datasets/brain_T2/
maps_dir: ./datasets/brain_T2_maps/
anatomy: brain
R: 4
pattern: equispaced
orientation: horizontal
start_iter: 1155
n_steps_each: 3
step_lr: 5e-5
multiprocessing: false
langevin_config:
  training: {batch_size: 2, n_epochs: 500000, n_iters: 3, snapshot_freq: 2, anneal_power: 2}
  sampling: {batch_size: 2, step_lr: 0.0002, n_steps_each: 2, denoise: true}
  data: {dataset: "mri-mvue", image_size: 16, channels: 2, random_flip: false, rescaled: false, num_workers: 0}
  model: {sigma_begin: 5, num_classes: 6, ema: true, ema_rate: 0.99, sigma_dist: geometric, sigma_end: 0.05, ngf: 4}
  optim: {weight_decay: 0.0, optimizer: "Adam", lr: 0.0001, beta1: 0.9, amsgrad: false, eps: 0.001}
"""
BASE = """
import ml_collections

class BaseCIFAR10Config(ml_collections.ConfigDict):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.data = ml_collections.ConfigDict()
        self.data.name = "CIFAR10"
        self.data.image_size = 8 * 2
        self.data.color_channels = 3
        self.data.num_workers = 0
        self.data.random_flip = True
        self.data.centered = False
        self.model = ml_collections.ConfigDict()
        self.model.sigma_min = 0.01
        self.model.sigma_max = 50
        self.model.num_scales = self.model.discretization_steps = 5
        self.model.dropout = 0.1
        self.model.embedding_type = 'fourier'
        self.model.device = torch.device("cuda")
        self.training = ml_collections.ConfigDict()
        self.training.batch_size = 2
        self.training.brand_new_epochs = 1
        self.training.snapshot_freq = 1
        self.sampling = ml_collections.ConfigDict()
        self.sampling.batch_size = 2
        self.sampling.snr = 0.16
        self.sampling.corrector_steps = 1
        self.sampling.discretization_steps = 5
        self.optim = ml_collections.ConfigDict()
        self.optim.lr = 2e-4
        self.optim.warmup = 2
        self.optim.grad_clip = 1.
        self.seed = open("{touched}", "w")
"""
REWRITE = """
import os
from config.base_cifar10 import BaseCIFAR10Config
from selector.config_selector import register_config

open("{touched}", "w")

@register_config(name='cifar10_ncsnpp_cont')
class CIFAR10NCSNPPContConfig(BaseCIFAR10Config):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.sampling.predictor = 'euler_maruyama'
        self.sampling.corrector = 'langevin'
        self.model.name = 'ncsnpp'
        self.model.sde_type = 'vesde'
        self.model.continuous = True
        self.model.scale_by_sigma = True
        self.model.ema_rate = 0.99
        self.model.nf = 8
        self.model.ch_mult = (1, 2)
        self.model.num_res_blocks = 1
        self.model.attn_resolutions = (8,)
        self.model.fir_kernel = [1, 3, 3, 1]
        self.model.progressive_input = 'residual'
        self.io = IOConfig()


class IOConfig(DynamicIOConfig):
    @property
    def use_tensorboard(self): return True
"""


DEFAULT = """
import ml_collections

def get_default_configs():
    config = ml_collections.ConfigDict()
    config.training = training = ml_collections.ConfigDict()
    training.batch_size = 2
    config.sampling = ml_collections.ConfigDict()
    config.data = data = ml_collections.ConfigDict()
    data.dataset = 'CIFAR10'
    data.image_size = 16
    data.num_channels = 3
    config.model = ml_collections.ConfigDict()
    config.optim = ml_collections.ConfigDict()
    config.optim.lr = 2e-4
    config.seed = 42
    return config
"""
DDPM = """
from configs.default_cifar10_configs import get_default_configs

def get_config():
    config = get_default_configs()
    config.training.sde = 'vpsde'
    config.training.continuous = False
    config.training.n_iters = 3
    config.sampling.predictor = 'ancestral_sampling'
    config.sampling.corrector = 'none'
    config.data.centered = True
    config.model.name = 'ddpm'
    config.model.num_scales = 1000
    config.model.beta_min = 0.1
    config.model.beta_max = 20.
    config.model.nf = 8
    config.model.ch_mult = (1, 2)
    config.model.num_res_blocks = 1
    config.model.attn_resolutions = (8,)
    return config
"""

SYSTEMS = ["ncsnv2", "ncsn", "csgm-mri-langevin", "score-diffusion-training", "score-sde", "ddpm of score-sde"]


def seeds(folder):
    """A config of each seed, in the folder; name -> path."""
    for name in ("config/ve", "configs/vp/ddpm"):
        (folder / name).mkdir(parents=True)
    (folder / "configs/default_cifar10_configs.py").write_text(DEFAULT)
    (folder / "config/base_cifar10.py").write_text(BASE.replace("{touched}", str(folder / "touched")))
    files = {
        "ncsnv2": ("cifar10.yml", NCSNV2), "ncsn": ("anneal.yml", NCSN),
        "csgm-mri-langevin": ("brain_T2.yaml", LANGEVIN),
        "score-diffusion-training": ("config.json", json.dumps(TRAINING)),
        "score-sde": ("config/ve/cifar10_ncsnpp_cont.py", REWRITE.replace("{touched}", str(folder / "touched"))),
        "ddpm of score-sde": ("configs/vp/ddpm/cifar10.py", DDPM),
    }  # fmt: skip
    for name, text in files.values():
        (folder / name).write_text(text)
    (folder / "loaders.py").write_text(LOADER)
    return {system: folder / name for system, (name, _) in files.items()}


def data(folder, system):
    """Tiny training data in the form that the config names."""
    random = np.random.default_rng(0)
    if system in ("ncsnv2", "score-sde", "ddpm of score-sde", "ncsn"):
        shape = (6, 16, 16) if system == "ncsn" else (6, 16, 16, 3)
        np.save(folder / "images.npy", random.integers(0, 255, shape, dtype=np.uint8))
        return folder / "images.npy"
    if system == "csgm-mri-langevin":
        command = ["simulate", "--out", str(folder / "scans"), "--size", "32", "--coils", "2", "--slices", "2"]
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
        return folder / "scans"
    return None


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_key_is_accounted_for_and_the_result_is_a_config(here, system):
    path = seeds(here)[system]
    published = read_published_config(path)
    found = translate(published, images=6, data=None if system == "score-diffusion-training" else "data")
    assert found.system == system.removeprefix("ddpm of ")

    def keys(values, prefix=""):
        for key, value in values.items():
            yield from keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]

    told = [key for key, _, _ in found.became + found.lost]
    assert sorted(told) == sorted(keys(published.sections)) and len(set(told)) == len(told)
    assert not [reason for _, _, reason in found.lost if reason == "no key of the documented config"]
    (here / "ours.yml").write_text(yaml.safe_dump(found.config))
    if system != "score-diffusion-training":  # whose data are a class of its own
        merged_settings(here / "ours.yml")
    assert not (here / "touched").exists()
    for command in found.commands:  # every option of them exists
        words = command.split()
        assert words[0] == "mri-score"
        known = {option for parameter in main.get_command(None, words[1]).params for option in parameter.opts}
        assert {word for word in words if re.match(r"--?[a-z]", word)} <= known, command


def test_what_the_keys_say_arrives(here):
    paths = seeds(here)
    ncsnv2 = translate(read_published_config(paths["ncsnv2"])).config
    assert ncsnv2["schedule"] == {"name": "geometric", "sigma_min": 0.05, "sigma_max": 5.0, "count": 6}
    assert ncsnv2["network"] == {"name": "ncsnv2", "depth": "low", "width": 4, "channels": 3, "published_input": True}
    assert ncsnv2["training"]["ema_decay"] == 0.99 and ncsnv2["training"]["epsilon"] == 1e-8
    assert ncsnv2["data"]["dequantisation"] == "uniform" and ncsnv2["data"]["flip"] is True
    ncsn = translate(read_published_config(paths["ncsn"])).config
    assert ncsn["loss"] == {"name": "sliced", "anneal_power": 2.0, "projections": 1, "probes": "gaussian"}
    assert ncsn["network"]["levels"] == 4 and ncsn["prior"] == {"precondition": "score"}
    sure = translate(read_published_config(paths["score-diffusion-training"]), images=6).config
    assert sure["schedule"] == {"name": "above-noise", "count": 8, "noise_std": 0.05}
    assert sure["loss"] == {"name": "sure_score", "published": True, "score_weight": 0.5, "rise": 3}
    assert (sure["data"]["name"], sure["data"]["key"], sure["data"]["noise_std"]) == ("loaders:Heads", "X", 0.05)
    rewrite = translate(read_published_config(paths["score-sde"]), images=6)
    assert rewrite.config["network"]["attention"] == [1] and rewrite.config["network"]["multipliers"] == [1, 2]
    assert rewrite.config["training"]["steps"] == 3 and rewrite.config["training"]["warmup"] == 6
    assert any("seed" in note and "no constant" in note for note in rewrite.notes)
    assert "--set predictor=euler-maruyama" in rewrite.commands[-1]
    ddpm = translate(read_published_config(paths["ddpm of score-sde"]))
    steps = {"name": "ddpm", "count": 1000, "beta_first": pytest.approx(1e-4), "beta_last": pytest.approx(0.02)}
    assert ddpm.config["schedule"] == steps and ddpm.config["prior"] == {"precondition": "ddpm"}
    assert ddpm.config["data"]["centred"] is True and ddpm.config["network"]["embedding"] == "positional"
    assert "--method ddpm --steps 1000" in ddpm.commands[-1]
    csgm = translate(read_published_config(paths["csgm-mri-langevin"]))
    line = next(command for command in csgm.commands if "reconstruct" in command)
    for part in ("--accel 4", "--mask equispaced", "--axis -2", "--samples 2", "--maps ./datasets/brain_T2_maps/"):
        assert part in line


def test_forms_of_files(here):
    """A pickled Namespace of a log folder, Hydra's defaults, and files that are no configs."""
    dumped = "!!python/object:argparse.Namespace\n" + NCSNV2.replace(
        "data: {", "data: !!python/object:argparse.Namespace {"
    )
    (here / "config.yml").write_text(dumped)
    assert translate(read_published_config(here / "config.yml")).config["schedule"]["sigma_max"] == 5.0
    (here / "file").mkdir()
    (here / "file/brain_T2.yaml").write_text(LANGEVIN)
    (here / "run_langevin.yaml").write_text("defaults:\n  - file: brain_T2\nR: 8\n")
    assert "--accel 8" in " ".join(translate(read_published_config(here / "run_langevin.yaml")).commands)
    (here / "hostile.yml").write_text("model: !!python/object/apply:os.system ['touch touched']\n")
    with pytest.raises(InputError, match="hostile.yml cannot be read as a config"):
        read_published_config(here / "hostile.yml")
    assert not (here / "touched").exists()
    (here / "odd.yml").write_text(NCSNV2.replace("ngf: 4", "ngf: [4]").replace("n_iters: 3", "n_iters: soon"))
    with pytest.raises(InputError, match="odd.yml has a value that ncsnv2 does not document"):
        translate(read_published_config(here / "odd.yml"))
    (here / "other.json").write_text('{"model": {"layers": 3}}')
    with pytest.raises(InputError, match="is no config of score-diffusion-training, ncsnv2"):
        translate(read_published_config(here / "other.json"))


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_config_of_each_seed_trains_and_samples(here, system):
    path, given = seeds(here)[system], data(here, system)
    where = [] if given is None else ["--data", str(given)]
    result = CliRunner().invoke(main, ["import-config", str(path), "--images", "6", "--out", "ours.yml", *where])
    assert result.exit_code == 0, result.output
    train = ["train", "--config", "ours.yml", "--out", "run", "--set", "training.workers=0"]
    if system == "score-diffusion-training":
        refused = CliRunner().invoke(main, train)
        assert refused.exit_code == 2 and "--allow-code" in refused.output
        train += ["--allow-code"]
        (here / "parameters").mkdir()
        (here / "parameters/heads.txt").write_text("9.5\n")
    result = CliRunner().invoke(main, train)
    assert result.exit_code == 0, result.output
    if system == "score-diffusion-training":
        assert (here / "parameters/heads.txt").read_text() == "9.5\n"
        parameters = read_parameters(here / "run/parameters.txt")
        assert parameters.sigma_max == 9.5 and parameters.sd is not None and parameters.levels is not None
    method = {"score-sde": "predictor-corrector", "ddpm of score-sde": "ddpm"}.get(system, "langevin")
    sample = [
        "sample",
        "--prior",
        "run",
        "-n",
        "2",
        "--size",
        "16",
        "--steps",
        "3",
        "--method",
        method,
        "--out",
        "images",
    ]
    result = CliRunner().invoke(main, sample)
    assert result.exit_code == 0, result.output
    assert list((here / "images").glob("*.h5"))


@pytest.mark.slow
def test_train_takes_a_config_of_another_project(here):
    path, given = seeds(here)["ncsnv2"], data(here, "ncsnv2")
    result = CliRunner().invoke(main, ["train", "--config", str(path), "--data", str(given), "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "a config of ncsnv2" in result.output and "NCSNv2," in result.output
    assert not (here / "runs").exists()


def test_a_bare_number_is_sigma_max_and_the_rest_is_measured(here):
    (here / "parameters").mkdir()
    (here / "parameters/pictures.txt").write_text("31.5\n")
    np.save(here / "images.npy", np.random.default_rng(0).integers(0, 255, (6, 16, 16), dtype=np.uint8))
    config = {"dataset": "pictures", "data": {"name": "plain_images", "paths": ["images.npy"]}}
    notes = []
    found = experiment.find_parameters(config, lambda: experiment.make_source(config), None, notes.append)
    measured = experiment.calibrate(config, experiment.make_source(config))
    assert found.sigma_max == 31.5 != measured.sigma_max
    assert (found.sd, found.mean, found.dimension, found.data) == (
        measured.sd, measured.mean, measured.dimension, measured.data
    )  # fmt: skip
    assert found.levels > measured.levels and "31.5 alone" in notes[0]
    assert (here / "parameters/pictures.txt").read_text() == "31.5\n"
    (here / "ours.yml").write_text(yaml.safe_dump(config))
    assert CliRunner().invoke(main, ["calibrate", "--config", "ours.yml"]).exit_code == 0
    assert read_parameters(here / "parameters/pictures.txt").sigma_max == 31.5


def test_a_class_of_the_users_is_a_source(here):
    (here / "mine.py").write_text(LOADER + '''

class Pairs:
    def __init__(self, count, real=False):
        self.images = [torch.full((4, 5), float(n) if real else complex(n, 1)) for n in range(count)]
    def __len__(self):
        return len(self.images)
    def __getitem__(self, number):
        return self.images[number]
''')  # fmt: skip
    from mri_score.numerics.noise import generators
    from mri_score.sources.own import code_allowed

    config = {"data": {"name": "mine:Pairs", "count": 3, "noise_std": 0.2}}
    with pytest.raises(InputError, match="whose code would run.*--allow-code"):
        experiment.make_source(config)
    with code_allowed():
        source = experiment.make_source(config)
        real = experiment.make_source({"data": {"name": "mine:Pairs", "count": 2, "real": True}})
        assert len(source) == 3
        seen = {int(source.sample(one).image.real.mean()) for one in generators(0, "batch", 0, 40)}
        assert seen == {0, 1, 2}
        item = source.sample(generators(0, "batch")[0])
        assert item.image.shape == (1, 4, 5) and item.image.dtype == torch.complex64
        assert float(item.noise_std) == pytest.approx(0.2)
        assert real.sample(generators(0, "batch")[0]).image.dtype == torch.float32
        for wrong, message in [
            ("absent:Class", "No module named 'absent'"), ("mine:Nothing", "has no class Nothing"),
        ]:  # fmt: skip
            with pytest.raises(InputError, match=message):
                experiment.make_source({"data": {"name": wrong}})
        with pytest.raises(InputError, match="TypeError.*unexpected keyword argument 'size'"):
            experiment.make_source({"data": {"name": "mine:Pairs", "size": 3}})
