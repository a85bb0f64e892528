"""From images to a prior, with automatic noise levels

What you learn: how a folder of images becomes a prior. The range of noise levels, their number and the Langevin step
are measured on the images; then a small network is trained for a minute or two, judged level by level, and sampled.

Papers: Song and Ermon, *Improved techniques for training score-based generative models*, NeurIPS 2020 (techniques 1, 2
and 4); Karras et al., *Elucidating the design space of diffusion-based generative models*, NeurIPS 2022.
"""

# %%
# ## Images
#
# Slices of numerical heads, another head each time, written as a stack of magnitude images: the layout in which one
# would bring one's own. `ImageStacks` turns them into complex training images, with phase, shading, tilt and scale
# drawn anew each time.

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import matplotlib.pyplot as plt
import torch

from mri_score import load_prior, phantom
from mri_score.experiment import calibrate, run
from mri_score.noise.ncsnv2_levels import excess_variance, level_overlap
from mri_score.noise.parameters import write_parameters
from mri_score.noise.schedules import Geometric
from mri_score.numerics.noise import generators
from mri_score.samplers import Langevin
from mri_score.sources.magnitude_images import ImageStacks

quick = os.environ.get("MRI_SCORE_TUTORIAL") == "quick"
size, heads, steps = (32, 8, 60) if quick else (64, 60, 2000)
room = TemporaryDirectory()
folder = Path(room.name)


def write_heads(path, seeds):
    slices = [
        phantom(size, coils=1, noise_snr=None, seed=seed, contrast=contrast, position=10.0 + 7 * (seed % 5)).image[0]
        for seed in seeds
        for contrast in ("T2", "FLAIR")[: 1 if quick else 2]
    ]
    with h5py.File(path, "w") as file:
        file["image"] = torch.stack(slices).abs().numpy()


write_heads(folder / "train.h5", range(heads))
write_heads(folder / "held_out.h5", range(1000, 1000 + max(4, heads // 10)))
source = ImageStacks([folder / "train.h5"], patch=size, least_resolution=0.8)
examples = torch.cat([source.sample(one).image for one in generators(0, "examples", draws=6)])

# %% [figure]
# Six training images, magnitude above and phase below (where there is signal).


def show(images, label):
    figure, panels = plt.subplots(2, 6, num=label, figsize=(8, 2.9))
    for column, image in zip(panels.T, images, strict=True):
        shown = column[0].imshow(image.abs(), cmap="gray", vmin=0, vmax=1.2)
        phase = torch.where(image.abs() > 0.08, image.angle(), torch.nan)
        turned = column[1].imshow(phase, cmap="twilight", vmin=-torch.pi, vmax=torch.pi)
        for panel in column:
            panel.set_axis_off()
    figure.colorbar(shown, ax=panels[0], label="magnitude", ticks=(0, 1))
    bar = figure.colorbar(turned, ax=panels[1], label="phase (rad)", ticks=(-torch.pi, 0, torch.pi))
    bar.ax.set_yticklabels(("$-\\pi$", "0", "$\\pi$"))


show(examples, "Training images: magnitude and phase")

# %%
# ## Noise levels, measured
#
# This is what `mri-score calibrate` does.
#
# 1. The largest level is the largest distance between two training images, so that a walk can go from any image to any
#    other. Here it is the sum of the two largest norms, because phases are arbitrary.
# 2. Neighbouring levels overlap by one half, so that each hands the next what it was trained on.
# 4. The Langevin step is the one that best keeps the noise at its level after three steps.
#
# (Technique 3, how a network sees sigma, is part of `NetworkPrior`; technique 5, the moving average of the weights, of
# the training loop.)

images = {"name": "images", "patch": size, "least_resolution": 0.8}
config = {
    "dataset": "heads",
    "data": {**images, "paths": [str(folder / "train.h5")]},
    "validation": {**images, "paths": [str(folder / "held_out.h5")]},
    "network": {"name": "unet", "widths": [16, 32, 64]},
    "schedule": {"name": "lognormal", "centre": 0.12, "spread": 1.5, "share": 0.1},
    "loss": {"name": "denoising"},
    "training": {"steps": steps, "batch_size": 8, "save_every": steps // 5, "ema_decay": 0.995, "workers": 0},
}
parameters = calibrate(config, source, count=20 if quick else 200)
write_parameters(folder / "run" / "parameters.txt", parameters)
print((folder / "run" / "parameters.txt").read_text())

# %% [figure]
# Techniques 2 and 4 as curves. The more components an image has, the closer its levels must lie: its noise fills a thin
# shell. A step that is too short does not bring the noise down from the level above, one that is too long adds its own.

ratio = (parameters.sigma_max / parameters.sigma_min) ** (1 / (parameters.levels - 1))
best = parameters.step_size / parameters.sigma_min**2
figure, (left, right) = plt.subplots(1, 2, num="Overlap of neighbouring levels, and noise after the Langevin steps")
ratios = torch.linspace(1, 1.1, 200).tolist()
for number, side in enumerate((32, 64, 256)):
    left.plot(ratios, [level_overlap(2 * side**2, g) for g in ratios], color=f"C{number}", label=f"{side} x {side}")
left.plot(ratio, level_overlap(parameters.dimension, ratio), "o", color="0.2")
left.set(xlabel="ratio of neighbouring levels", ylabel="overlap", title="technique 2")
left.legend(title="complex pixels")
sizes = torch.logspace(-3, 0, 200).tolist()
right.loglog(sizes, [excess_variance(e, ratio, parameters.repeats) for e in sizes], color="0.2")
right.plot(best, excess_variance(best, ratio, parameters.repeats), "o", color="0.2")
right.set(xlabel="step / $\\sigma^2$", ylabel="excess variance / $\\sigma^2$", title="technique 4")

# %%
# ## Training
#
# The noise levels of training span the measured range; most are drawn near 0.12, where images take shape. (With
# `{name: geometric, count: automatic}` training uses the ladder of technique 2, evenly: for longer runs.) `run` is what
# `mri-score train` calls, with the same config as a dictionary. It writes a run folder with log, checkpoints and the
# averaged prior.

run(config, folder / "run", quiet=True)
prior = load_prior(folder / "run")
log = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
curves = {entry["step"]: entry["denoising_errors"] for entry in log if "denoising_errors" in entry}
for sigma, error in curves[steps].items():
    print(f"sigma {float(sigma):4g}: denoising error {error:.2f}")

# %% [figure]
# The error on held-out heads at each noise level, in units of what the best linear guess without structure reaches: 1
# would be no knowledge of heads at all. Structure helps most at intermediate noise. With little noise the fine detail
# counts, which takes much longer to learn; with most of it, only the coarse shape is left to guess.

figure, panel = plt.subplots(num="Denoising error of held-out heads, level by level", figsize=(8, 2.7))
shades = plt.cm.viridis(torch.linspace(0, 0.9, len(curves)).numpy())
for shade, (step, errors) in zip(shades, curves.items(), strict=True):
    panel.loglog([float(s) for s in errors], list(errors.values()), "o-", markersize=4, color=shade, label=f"{step}")
panel.axhline(1, color="0.4", linewidth=0.8, linestyle="--")
panel.set(xlabel="noise level $\\sigma$ (bright tissue = 1)", ylabel="denoising error")
panel.set_xticks((0.01, 0.03, 0.1, 0.3, 1, 3), ("0.01", "0.03", "0.1", "0.3", "1", "3"))
panel.set_yticks((0.1, 0.2, 0.5, 1), ("0.1", "0.2", "0.5", "1"))
panel.minorticks_off()
panel.legend(title="training step", loc="center left", bbox_to_anchor=(1, 0.5))

# %%
# ## Samples
#
# Annealed Langevin dynamics with the numbers as measured: levels, steps a level, step size.

levels = 20 if quick else parameters.levels
walk = Langevin(
    Geometric(parameters.sigma_min, parameters.sigma_max).levels(levels), repeats=parameters.repeats, step_size=best
)
samples = walk(prior, examples, generators(0, "samples", draws=6))
power = float((samples.abs().square().mean() / 2).sqrt())
print(f"{levels * parameters.repeats} network calls; sd of samples {power:.2f}, of training images {prior.sd:.2f}")

# %% [figure]
# A minute or two of training on 64 x 64 images gives a prior that knows dark air, a bright object with texture and a
# phase that is smooth in places, and hardly the plan of a head. The bundled prior `brain` is the same network, twelve
# times as large and trained for hours on real heads.

show(samples, "Samples of the prior: magnitude and phase")
room.cleanup()
