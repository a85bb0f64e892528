"""DDPM and stochastic differential equations

What you learn: DDPM, the VP and VE processes and the probability flow are one family. They share their distributions
p(x0 + sigma n) at every noise level, and differ in how a walk goes from one level to the next. Everything is drawn on
one axis, where the densities are known.

Papers: Ho et al., *Denoising diffusion probabilistic models*, NeurIPS 2020; Song et al., *Denoising diffusion implicit
models*, ICLR 2021; Song et al., *Score-based generative modeling through stochastic differential equations*, ICLR 2021.
"""

# %%
# ## One distribution, noise by noise
#
# Three narrow Gaussians on a line. DDPM does not let x grow with the noise: it follows x_t = a x0 + s n with
# a^2 + s^2 = 1. Divided by a this is x0 + sigma n with sigma = s / a, the coordinate of this package, so that one score
# serves both. The schedule `VP` holds the published beta of 0.1 to 20.

import os

import matplotlib.pyplot as plt
import torch
from torch import nn

from mri_score.likelihood import log_likelihood
from mri_score.losses import Denoising
from mri_score.models.analytic import MixturePrior
from mri_score.models.network import NetworkPrior
from mri_score.noise.schedules import VP, Geometric
from mri_score.numerics.noise import generators
from mri_score.samplers import Ancestral, Heun, PredictorCorrector

quick = os.environ.get("MRI_SCORE_TUTORIAL") == "quick"
count = 300 if quick else 2000  # samples of a walk
steps = 150 if quick else 4000  # of training

truth = MixturePrior(torch.tensor([[-2.0], [0.5], [2.5]]), stds=torch.tensor([0.25, 0.4, 0.2]),
                     weights=torch.tensor([3.0, 5.0, 2.0]))  # fmt: skip
truth.sigma_min, truth.sigma_max = 0.02, 60.0


def density(x, sigma):
    """p of x0 + sigma n at x: exact, shape of x."""
    variance = truth.stds**2 + sigma**2
    each = torch.exp(-((x[..., None] - truth.means[:, 0]) ** 2) / (2 * variance)) / (2 * torch.pi * variance).sqrt()
    return (truth.weights * each).sum(-1)


vp = VP.between(truth.sigma_min, truth.sigma_max)
print("sigma of the VP process at 0, 25, 50, 75 and 100 % of its time:", [f"{s:.3g}" for s in vp.levels(5).tolist()])

# %%
# ## Two ways down
#
# Both walks below start from the same noise. DDPM's ancestral step draws new noise at every level; the probability flow
# draws none, so that its paths are smooth and never cross. Where the paths go differs; how many of them are at a place
# does not.

levels = vp.levels(120)
starts = 11


def paths(walk):
    """The iterates of a walk from the same noise, as x_t of DDPM: (levels + 1, starts)."""
    kept = []
    sigmas = [*walk.sigmas[1:].tolist(), 0.0]

    def watch(level, sigma, x):
        kept.append(x[:, 0] / (1 + sigmas[level] ** 2) ** 0.5)

    walk(truth, torch.zeros(starts, 1), generators(3, draws=starts), watch)
    return torch.stack(kept)


walks = {"DDPM: new noise at each level": Ancestral(levels), "probability flow: none": Heun(levels)}
trails = {name: paths(walk) for name, walk in walks.items()}

# %% [figure]
# Brightness is the exact density of x_t. Left of each panel is noise, right are the data.

figure, panels = plt.subplots(1, 2, num="Paths of both walks over the exact densities", figsize=(8, 3.2), sharey=True)
height = torch.linspace(-3.4, 3.4, 240)
shares = 1 / (1 + levels**2).sqrt()
sheet = torch.stack([density(height / a, s) / a for a, s in zip(shares, levels, strict=True)], 1)
for panel, (name, trail) in zip(panels, trails.items(), strict=True):
    panel.imshow(sheet.sqrt(), origin="lower", aspect="auto", extent=(0, 1, -3.4, 3.4), cmap="Blues", vmax=1.3)
    panel.plot(torch.linspace(0, 1, len(trail)), trail, color="#D55E00", linewidth=0.9, alpha=0.85)
    panel.set(title=name, xlabel="time of the VP process, reversed", ylim=(-3.4, 3.4))
panels[0].set_ylabel("$x_t$")

# %%
# ## How many steps?
#
# The distance between the samples and the truth, as the area between their cumulative distributions (Wasserstein-1),
# for each kind of step and the same number of score evaluations. With stochastic steps many are needed, since each one
# errs in variance; Heun's method for the flow is of second order, at two evaluations a level. The reverse diffusion is
# the predictor of Score SDE for the VE process, without its Langevin corrections, whose step is made for images: on a
# line the norm of the score may vanish.

grid = torch.linspace(-4, 4, 1601)
mass = density(grid, torch.tensor(0.0))
exact = torch.cumsum(mass, 0) * (grid[1] - grid[0])


def distance(samples):
    """Wasserstein-1 to the truth."""
    empirical = (samples.sort().values[None] <= grid[:, None]).float().mean(1)
    return float((empirical - exact).abs().sum() * (grid[1] - grid[0]))


def ve(n):
    return Geometric(truth.sigma_min, truth.sigma_max).levels(n)


def sampled(walk):
    return walk(truth, torch.zeros(count, 1), generators(5, draws=count))[:, 0]


budgets = (8, 16, 32) if quick else (8, 16, 32, 64, 128)
kinds = {
    "DDPM": lambda n: Ancestral(vp.levels(n)),
    "DDIM": lambda n: Ancestral(vp.levels(n), eta=0.0),
    "Heun on the flow": lambda n: Heun(vp.levels(n // 2)),
    "reverse diffusion (VE)": lambda n: PredictorCorrector(ve(n), repeats=0),
}
errors = {name: [distance(sampled(make(n))) for n in budgets] for name, make in kinds.items()}
draws = [truth.draw(torch.zeros(count, 1), 1e4, generators(6 + n, draws=count))[:, 0] for n in range(10)]
ideal = sum(map(distance, draws)) / len(draws)
for name, found in errors.items():
    print(f"{name:26}", "  ".join(f"{n}: {error:.3f}" for n, error in zip(budgets, found, strict=True)))
print(f"{count} exact draws, mean of ten sets: {ideal:.3f}")

# %% [figure]
# The dashed line is the mean for as many exact draws.

figure, panel = plt.subplots(num="Distance to the truth by the number of evaluations", figsize=(6.5, 3.0))
for (name, found), marker in zip(errors.items(), "os^D", strict=True):
    panel.loglog(budgets, found, marker=marker, markersize=4, label=name)
panel.axhline(ideal, color="0.5", linestyle="--", linewidth=1, label=f"{count} exact draws")
ticks = [0.025, 0.05, 0.1, 0.2, 0.4]
panel.set(xlabel="score evaluations per sample", ylabel="Wasserstein-1 distance to the truth", ylim=(0.02, 0.8))
panel.set(xticks=budgets, xticklabels=budgets, yticks=ticks, yticklabels=ticks)
panel.minorticks_off()
panel.legend(loc="upper left", bbox_to_anchor=(1, 1))

# %%
# ## Training a DDPM
#
# A DDPM is a network that predicts the noise. `precondition="vp"` gives it x_t and the label 999 t, and the weighting
# `noise` is DDPM's simple loss. Time is continuous here; the published 1,000 steps are the schedule `LinearBetas` with
# `precondition="ddpm"` (the config `cifar10_ddpm.yml`), walked by `mri-score sample --method ddpm`. In two dimensions
# of data or two million the lines are the same; here the network is a small perceptron. Data: points alone.


class Noise(nn.Module):
    """Predicts the noise in x_t: (B, 1, 1) and the label (B,) -> (B, 1, 1)."""

    def __init__(self, width=128):
        super().__init__()
        self.frequencies = torch.pi * torch.arange(1, 9) / 999
        self.layers = nn.Sequential(
            nn.Linear(18, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 1),
        )

    def forward(self, x, label):
        waves = label[:, None] * self.frequencies
        features = torch.cat([x[:, 0], label[:, None] / 999, waves.cos(), waves.sin()], 1)
        return self.layers(features)[:, :, None]


torch.manual_seed(0)
points = truth.draw(torch.zeros(20_000, 1), 1e4, [torch.Generator().manual_seed(1)] * 20_000)
prior = NetworkPrior(Noise(), precondition="vp", sd=truth.sd, sigma_min=truth.sigma_min, sigma_max=truth.sigma_max)
loss = Denoising(vp, weighting="noise")
optimizer = torch.optim.Adam(prior.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
random = torch.Generator().manual_seed(2)
for _ in range(steps):
    batch = points[torch.randint(len(points), (256,), generator=random)]
    sigma = vp.draw([random] * len(batch)).float()
    value = loss.at(prior, batch, sigma, [random] * len(batch)).mean()
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    schedule.step()
prior.eval().requires_grad_(False)
walk = Ancestral(vp.levels(64 if quick else 256))
learned = walk(prior, torch.zeros(count, 1), generators(7, draws=count))[:, 0]
print(f"Wasserstein-1 of {count} samples of the trained DDPM: {distance(learned):.3f}")

# %%
# ## The likelihood of the flow
#
# The flow carries the density along, so that it can be computed at any point, here under the exact score and under the
# trained DDPM. This is what `mri-score likelihood` does for images.

place = torch.linspace(-3.2, 3.4, 40 if quick else 100)[:, None]
curves = {}
for name, model in {"exact score": truth, "trained DDPM": prior}.items():
    curves[name] = log_likelihood(
        model, place, truth.sigma_min, truth.sigma_max, generators(8, draws=len(place)), steps=40 if quick else 120
    )
known = density(place[:, 0], truth.sigma_min).log()

# %% [figure]
# Samples of the trained DDPM, and both densities beside the truth.

figure, panels = plt.subplots(1, 2, num="Samples and densities of the trained DDPM", figsize=(8, 2.9))
panels[0].hist(learned.numpy(), bins=80, range=(-4, 4), density=True, color="#56B4E9", label="samples")
panels[0].plot(grid, mass, color="0.2", label="truth")
panels[0].set(xlabel="x", ylabel="density")
panels[0].legend()
panels[1].plot(place, known, color="0.2", linewidth=3.5, alpha=0.5, label="truth")
for name, curve in curves.items():
    panels[1].plot(place, curve, label=name, linestyle="--" if name == "exact score" else "-")
panels[1].set(xlabel="x", ylabel="log density", ylim=(-9, 1.6), yticks=range(-8, 1, 2))
panels[1].legend(loc="upper center", ncols=3, columnspacing=1, handlelength=1.4)
