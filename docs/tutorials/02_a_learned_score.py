"""A learned score in the plane

What you learn: denoising score matching gives a score from samples alone. Learned at a single noise level it is right
at that level, and only where there are data. Learned at many levels it is right at each level where a walk comes by,
and that is enough; a walk at one level may still come home, but spreads its samples wrongly.

Papers: Vincent, *A connection between score matching and denoising autoencoders*, Neural Computation 2011; Song and
Ermon, *Generative modeling by estimating gradients of the data distribution*, NeurIPS 2019; Karras et al.,
*Elucidating the design space of diffusion-based generative models*, NeurIPS 2022 (the preconditioning).
"""

# %%
# ## Data
#
# Points on a spiral. They come from a mixture of 40 small Gaussians, so that the exact score is known and the network
# can be judged; training sees points only. At a noise level of 1000 a point says nothing about its origin: a draw given
# such a point is a draw of the mixture.

import os

import matplotlib.pyplot as plt
import torch
from torch import nn

from mri_score.losses import Denoising
from mri_score.losses.base import mean_square
from mri_score.models.analytic import MixturePrior
from mri_score.models.network import NetworkPrior
from mri_score.noise.schedules import Geometric
from mri_score.numerics.noise import generators, noise_like
from mri_score.samplers import Langevin

quick = os.environ.get("MRI_SCORE_TUTORIAL") == "quick"
steps = 250 if quick else 3000  # of training
count = 300 if quick else 1000  # samples of a walk

angle = torch.linspace(2.2, 11.5, 40)
means = 0.4 * angle[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
truth = MixturePrior(means, stds=torch.full((40,), 0.25), weights=angle)


def draw_points(n, random):
    return truth.draw(torch.zeros(n, 2), 1e3, [random] * n)


points = draw_points(20_000, torch.Generator().manual_seed(1))

# %%
# ## A network becomes a prior
#
# `NetworkPrior` gives a network one channel for real data: shape `(B, 1, 2)` here, and the noise coordinate beside it.
# So a small MLP fits behind its door as it is, and the preconditioning, the loss and every sampler of the package work
# with it; there is no need for a score model of our own.


class Perceptron(nn.Module):
    def __init__(self, width=128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x, c_noise):
        return self.layers(torch.cat([x[:, 0], c_noise[:, None]], dim=1))[:, None]


# %%
# ## One noise level against many
#
# The same network, data and number of steps; only the noise levels differ: always `sigma = 0.2`, or any between 0.2 and
# 10, drawn evenly in the logarithm. The loss is the package's: `weight(sigma) |D(x0 + sigma n, sigma) - x0|^2`.

schedule = Geometric(sigma_min=0.2, sigma_max=10.0)
loss = Denoising(schedule)


def train(draw_sigma, batch_size=256):
    torch.manual_seed(0)
    prior = NetworkPrior(Perceptron(), sd=truth.sd, sigma_min=0.2, sigma_max=10.0)
    optimizer = torch.optim.Adam(prior.parameters(), lr=2e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    random = [torch.Generator().manual_seed(2)] * batch_size
    for _ in range(steps):
        x0 = points[torch.randint(len(points), (batch_size,), generator=random[0])]
        value = loss.at(prior, x0, draw_sigma(random), random).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        rate.step()
    return prior.requires_grad_(False)


one = train(lambda random: torch.full((len(random),), 0.2))
many = train(schedule.draw)

# %%
# ## How wrong is the score?
#
# First where it is needed if all goes well: at points of the law with noise of that level. The error is
# `sigma^2 mean |score - exact|^2`, which for no score at all would be 1 at high noise.

levels = schedule.levels(13)


def score_error(prior, sigma):
    random = [torch.Generator().manual_seed(3)] * 2000
    x = draw_points(2000, random[0])
    x = x + sigma * noise_like(x, random)
    return float(sigma**2 * mean_square(prior.score(x, sigma) - truth.score(x, sigma)).mean())


errors = {name: [score_error(prior, float(s)) for s in levels] for name, prior in {"one": one, "many": many}.items()}
for name, curve in errors.items():
    print(f"{name:4s}  sigma 10: {curve[0]:.4f}   sigma 1: {curve[6]:.4f}   sigma 0.2: {curve[-1]:.4f}")

# %% [figure]
# The network of one level is right at its own level alone: it was never asked about others.

figure, panel = plt.subplots(num="Error of the score at every noise level", figsize=(8, 2.6))
for (name, curve), color in zip(errors.items(), ("C1", "C0"), strict=True):
    panel.loglog(levels, curve, "o-", markersize=4, color=color, label=name)
panel.set(xlabel="noise level $\\sigma$", ylabel="$\\sigma^2$ mean |score error|$^2$")
panel.set_xticks((0.2, 0.5, 1, 2, 5, 10), ("0.2", "0.5", "1", "2", "5", "10"))
panel.minorticks_off()
panel.legend(title="noise levels", loc="center left", bbox_to_anchor=(1, 0.5))

# %% [figure]
# Now everywhere in the plane. At `sigma = 0.2` *both* networks are wrong where no noisy point ever lay: between the
# turns of the spiral and outside of it. That is no fault of theirs, since no loss can tell them what to do there. At
# `sigma = 2` noisy points lie everywhere, and the network of many levels is right nearly everywhere.

axis = torch.linspace(-8, 8, 120)
x, y = torch.meshgrid(axis, axis, indexing="xy")
plane = torch.stack([x, y], -1).reshape(-1, 2)
cases = {"one level, $\\sigma$ = 0.2": (one, 0.2), "many levels, $\\sigma$ = 0.2": (many, 0.2)}
cases["many levels, $\\sigma$ = 2"] = (many, 2.0)
figure, panels = plt.subplots(1, 3, num="Error of the score over the plane", sharey=True)
for panel, (title, (prior, sigma)) in zip(panels, cases.items(), strict=True):
    error = sigma * (prior.score(plane, sigma) - truth.score(plane, sigma)).norm(dim=1)
    shown = panel.imshow(
        error.reshape(120, 120), origin="lower", extent=(-8, 8, -8, 8), cmap="magma", norm="log", vmin=0.03, vmax=30
    )
    panel.scatter(*points[:300].T, s=1.5, color="white", linewidths=0)
    panel.set(title=title, xlabel="$x_1$", xticks=(-5, 0, 5), yticks=(-5, 0, 5))
panels[0].set_ylabel("$x_2$")
figure.colorbar(shown, ax=panels, shrink=0.85, label="$\\sigma$ |score error|", extend="both")

# %%
# ## Walks
#
# All start from noise of `sigma = 10`. One level: 600 Langevin steps at `sigma = 0.2`, with the learned score and, to
# compare, with the exact one. Many levels: the same number of steps from `sigma = 10` down to 0.2. We count the samples
# within three standard deviations of the nearest centre of the mixture (99 % in truth), and compare where along the
# spiral they lie: the largest difference of the cumulative distributions (Kolmogorov distance; 0 is perfect, and 1000
# draws of the truth itself give about 0.03).

noise = 10 * noise_like(torch.zeros(count, 2), generators(0, "start", draws=count))
plain = Langevin(torch.tensor([0.2]), repeats=600, step_size=0.2)
annealed = Langevin(schedule.levels(60), repeats=10, step_size=0.2)

samples = {
    "truth": draw_points(count, torch.Generator().manual_seed(5)),
    "one level, exact score": plain(truth, noise, generators(0, "plain", draws=count), start=noise),
    "one level, learned": plain(one, noise, generators(0, "plain", draws=count), start=noise),
    "many levels, learned": annealed(many, noise, generators(0, "annealed", draws=count)),
}


def along(samples):
    """Cumulative share of the samples along the spiral, from the inner end."""
    nearest = torch.cdist(samples, means).argmin(1)
    return torch.bincount(nearest, minlength=40).cumsum(0) / len(samples)


def judge(samples):
    distance = torch.cdist(samples, means).min(1).values
    far = (along(samples) - truth.weights.cumsum(0)).abs().max()
    return float((distance < 3 * 0.25).float().mean()), float(far)


verdicts = {name: judge(x) for name, x in samples.items()}
for name, (near, far) in verdicts.items():
    print(f"{name:22s}  near the spiral: {near:6.1%}   Kolmogorov distance: {far:.2f}")

# %% [figure]
# All walks end on the spiral: in two dimensions a smooth network points inwards even where it saw nothing. But both
# walks at one level, that with the exact score too, have far too few samples on the inner turn: coming from outside
# they met the outer one first. The annealed walk follows the law while it is still blurred, and its shares are nearly
# right. It pays with a few more points between the turns: the same network had many levels to learn in the same number
# of steps.

figure, panels = plt.subplots(1, 4, num="Samples of the walks", figsize=(8, 2.5), sharey=True)
colors = ("0.45", "C2", "C1", "C0")
for panel, (name, x), color in zip(panels, samples.items(), colors, strict=True):
    panel.scatter(*x.T, s=2.5, color=color, alpha=0.6, linewidths=0)
    panel.set(title=name, xlim=(-8, 8), ylim=(-8, 8), aspect="equal", xticks=(-5, 0, 5), yticks=(-5, 0, 5))
    panel.set_xlabel("$x_1$")
panels[0].set_ylabel("$x_2$")

# %% [figure]
# The same as cumulative shares along the spiral.

figure, panel = plt.subplots(num="Where along the spiral the samples lie", figsize=(8, 2.7))
for (name, x), color in zip(samples.items(), colors, strict=True):
    panel.plot(torch.arange(1, 41), 100 * along(x), color=color, label=name, linewidth=3 if name == "truth" else 1.6)
panel.set(xlabel="component of the mixture, numbered from the inner end", ylabel="cumulative share (%)", xlim=(1, 40))
panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
