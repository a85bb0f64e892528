"""Langevin dynamics on a mixture

What you learn: a score that is exact everywhere still gives wrong samples if one walks it at a single noise level.
Each mode is drawn well, but not as often as it should be. Walking down from a high noise level mends that.

Papers: Song and Ermon, *Generative modeling by estimating gradients of the data distribution*, NeurIPS 2019
(section 3.2.2 is this experiment); Song and Ermon, *Improved techniques for training score-based generative models*,
NeurIPS 2020.
"""

# %%
# ## A law that is known in full
#
# Three round Gaussians in the plane. `MixturePrior` is a score model like any other, with a closed form in place of a
# network: at every noise level `sigma` it knows the score of `x0 + sigma n`.

import os

import matplotlib.pyplot as plt
import numpy as np
import torch

from mri_score.models.analytic import MixturePrior
from mri_score.noise.schedules import Geometric
from mri_score.numerics.noise import generators
from mri_score.samplers import Langevin

quick = os.environ.get("MRI_SCORE_TUTORIAL") == "quick"
count = 400 if quick else 2000  # samples

means = torch.tensor([[-5.0, -3.0], [5.0, -3.0], [0.0, 5.5]])
weights = torch.tensor([0.6, 0.3, 0.1])
prior = MixturePrior(means, stds=torch.full((3,), 0.8), weights=weights)


# %% [figure]
# The density and its score at three noise levels. With little noise the field has three basins, and nothing in it says
# that one mode weighs six times another: where the other modes are far away, the gradient of `log (w p)` does not
# depend on `w`. With much noise the basins merge, and the field points to where the weight is.


def density(points, sigma):
    variance = prior.stds**2 + sigma**2
    square = (points[:, None] - prior.means).square().sum(-1)
    return (prior.weights / (2 * torch.pi * variance) * torch.exp(-square / (2 * variance))).sum(1)


def plane(n):
    axis = torch.linspace(-10, 10, n)
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    return axis, torch.stack([x, y], -1).reshape(-1, 2)


figure, panels = plt.subplots(1, 3, num="Density and score at three noise levels", sharey=True)
for panel, sigma in zip(panels, (0.3, 2.0, 6.0), strict=True):
    _, fine = plane(160)
    axis, coarse = plane(17)
    score = prior.score(coarse, sigma)
    arrows = (score / score.norm(dim=1, keepdim=True)).reshape(17, 17, 2)
    log_density = density(fine, sigma).log().reshape(160, 160)
    panel.imshow(log_density - log_density.max(), origin="lower", extent=(-10, 10, -10, 10), vmin=-8, vmax=0)
    panel.quiver(axis, axis, arrows[..., 0], arrows[..., 1], color="white", alpha=0.75, scale=24, width=0.005)
    panel.set(title=f"$\\sigma$ = {sigma:g}", xlabel="$x_1$", xticks=(-8, 0, 8), yticks=(-8, 0, 8))
panels[0].set_ylabel("$x_2$")
figure.colorbar(panels[0].images[0], ax=panels, shrink=0.85, label="log density below its peak", extend="min")

# %%
# ## Two walks of the same length
#
# Both take 600 Langevin steps, `x <- x + a score(x) + sqrt(2 a) n`. The plain walk takes them all at `sigma = 0.3`,
# from points spread evenly over the plane. The annealed walk goes from `sigma = 20` to `0.3` in 60 levels of 10 steps,
# the step `a` in proportion to `sigma^2`.

levels = 60
random = torch.Generator().manual_seed(0)
anywhere = 20 * torch.rand(count, 2, generator=random) - 10

plain_walk = Langevin(torch.tensor([0.3]), repeats=10 * levels, step_size=0.5)
plain = plain_walk(prior, anywhere, generators(0, "plain", draws=count), start=anywhere)

held = []  # the responsibilities of the modes, level by level


def watch(level, sigma, x):
    held.append(prior.responsibilities(x, sigma))


annealed_walk = Langevin(Geometric(0.3, 20.0).levels(levels), repeats=10, step_size=0.2)
annealed = annealed_walk(prior, anywhere, generators(0, "annealed", draws=count), watch)

# %%
# Which mode is a sample of? The mixture itself tells, by its responsibilities without noise.


def mode_weights(samples):
    modes = prior.responsibilities(samples, 0.0).argmax(1)
    return torch.bincount(modes, minlength=3) / len(samples)


found = {"plain": mode_weights(plain), "annealed": mode_weights(annealed)}
print("truth   ", np.round(weights.numpy(), 3))
for name, share in found.items():
    print(f"{name:8s}", np.round(share.numpy(), 3))

# %% [figure]
# Both walks find the modes and their shape. The weights of the plain walk are the areas of the basins that its points
# started in, and have nothing to do with the law. A longer walk would not mend that: between two modes the density
# falls by a factor of more than a million. The annealed walk has the weights right to a few per cent. (Circles: two
# standard deviations. Whiskers: two standard errors.)

label = "Samples of both walks, and the weights of the modes"
figure, panels = plt.subplots(1, 3, num=label, width_ratios=(1, 1, 1.15))
for panel, (name, samples) in zip(panels, {"plain": plain, "annealed": annealed}.items(), strict=False):
    color = "C1" if name == "plain" else "C0"
    panel.scatter(*samples[:600].T, s=4, color=color, alpha=0.6, linewidths=0)
    for mean in means.tolist():
        panel.add_patch(plt.Circle(mean, 2 * 0.8, fill=False, color="0.45", linewidth=0.8))
    panel.set(title=f"{name} Langevin", xlabel="$x_1$", xlim=(-10, 10), ylim=(-10, 10), aspect="equal")
    panel.set(xticks=(-8, 0, 8), yticks=(-8, 0, 8))
panels[0].set_ylabel("$x_2$")
place = np.arange(3)
for shift, (name, share, color) in enumerate(
    [("truth", weights, "0.75"), ("plain", found["plain"], "C1"), ("annealed", found["annealed"], "C0")]
):
    luck = 0 if name == "truth" else 2 * (share * (1 - share) / count).sqrt()
    panels[2].bar(place + 0.27 * (shift - 1), share, 0.25, yerr=luck, color=color, label=name, ecolor="0.3")
panels[2].set(title="weights of the modes", ylabel="share of the samples", ylim=(0, 0.75))
panels[2].set_xticks(place, ["lower left", "lower right", "top"])
panels[2].set_box_aspect(1 / 1.15)
panels[2].legend()

# %% [figure]
# ## Where the annealed walk decides
#
# Left: at high noise every point belongs to each mode in proportion to its weight, and these shares hold all the way
# down. Right: how many of the points already sit nearest to the mode that they will end in. The choice falls at noise
# levels near the distance between the modes; below that the basins are closed and nobody changes sides. A prior of
# images decides in the same way, the large forms first.

sigmas = annealed_walk.sigmas.numpy()
shares = torch.stack(held).mean(1)
choices = torch.stack(held).argmax(2)
settled = (choices == choices[-1]).float().mean(1)
figure, panels = plt.subplots(1, 2, num="Shares of the modes along the walk, and when they are decided", sharex=True)
for mode, name in enumerate(("lower left", "lower right", "top")):
    panels[0].semilogx(sigmas, shares[:, mode], label=name)
    panels[0].axhline(weights[mode], color=f"C{mode}", linewidth=0.8, linestyle=":")
panels[0].set(title="shares of the modes", ylabel="mean responsibility", ylim=(0, 0.9))
panels[0].legend(ncols=3, loc="upper center")
panels[1].semilogx(sigmas, 100 * settled, color="0.2")
panels[1].set(title="samples already in their final mode", ylabel="share of the samples (%)", ylim=(0, 104))
for panel in panels:
    panel.set(xlabel="noise level $\\sigma$, falling along the walk", xticks=(10, 3, 1, 0.3))
    panel.set_xticklabels(("10", "3", "1", "0.3"))
    panel.minorticks_off()
panels[0].invert_xaxis()
