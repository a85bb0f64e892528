"""Learning from noisy data alone

What you learn: a denoiser, and so a score, can be learned without one clean example if the noise level is known.
Stein's unbiased risk estimate (SURE) replaces the missing truth. Treating noisy data as if they were clean does not
work. And what SURE leaves undone: it denoises as well as the truth allows, but the prior that is built on it is too
narrow.

Papers: Stein, *Estimation of the mean of a multivariate normal distribution*, Annals of Statistics 1981; Aali et al.,
*Solving inverse problems with score-based generative priors learned from noisy data*, Asilomar 2023.
"""

# %%
# ## A law with a known answer
#
# Six clusters on a ring, seen through noise of `noise_std = 0.8` in each coordinate. Because the law is a mixture of
# Gaussians, the best possible denoiser is known, and so is what the naive way gives in the limit: a mixture as well,
# whose clusters have the variance of the noise on top of their own.

import os

import matplotlib.pyplot as plt
import torch
from torch import nn

from mri_score import TrainingItem
from mri_score.losses import Denoising, Sure
from mri_score.losses.base import mean_square
from mri_score.models.analytic import MixturePrior
from mri_score.models.network import NetworkPrior
from mri_score.noise.schedules import Geometric
from mri_score.numerics.noise import generators, noise_like
from mri_score.samplers import Langevin

quick = os.environ.get("MRI_SCORE_TUTORIAL") == "quick"
steps = 400 if quick else 3000  # of training
count = 400 if quick else 1000  # samples of a walk

noise_std = 0.8
angle = torch.arange(6) * torch.pi / 3
means = 4 * torch.stack([angle.cos(), angle.sin()], 1)
truth = MixturePrior(means, stds=torch.full((6,), 0.5), weights=torch.ones(6))
naive_limit = MixturePrior(means, stds=(truth.stds**2 + noise_std**2).sqrt(), weights=torch.ones(6))


def draw_pairs(n, seed):
    random = [torch.Generator().manual_seed(seed)] * n
    clean = truth.draw(torch.zeros(n, 2), 1e3, random)
    return clean, clean + noise_std * noise_like(clean, random)


clean, noisy = draw_pairs(20_000, seed=1)

# %%
# ## Three ways to train the same network
#
# - **clean**: denoising score matching on clean points, which nobody has in the situation that we study;
# - **naive**: the same on the noisy points, as if they were clean;
# - **SURE**: the package's loss on the noisy points. Its first part is
#   `|D(y) - y|^2 + 2 noise_std^2 div D(y) - n noise_std^2`, whose expectation is the error of `D(y)` against the truth,
#   though the truth does not occur in it. Its second part is score matching on the points so denoised.


class Perceptron(nn.Module):
    def __init__(self, width=128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x, c_noise):
        return self.layers(torch.cat([x[:, 0], c_noise[:, None]], dim=1))[:, None]


schedule = Geometric(sigma_min=0.2, sigma_max=20.0)
test_clean, test_noisy = draw_pairs(4000, seed=2)


def denoising_error(prior):
    """Mean square error per coordinate at the noise level of the data, against points that training never saw."""
    return float(mean_square(prior.denoise(test_noisy, noise_std) - test_clean).mean())


def train(loss, data, batch_size=256):
    torch.manual_seed(0)
    prior = NetworkPrior(Perceptron(), sd=truth.sd, sigma_min=0.2, sigma_max=20.0)
    optimizer = torch.optim.Adam(prior.parameters(), lr=2e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    random = [torch.Generator().manual_seed(3)] * batch_size
    curve = {}
    for step in range(steps):
        x = data[torch.randint(len(data), (batch_size,), generator=random[0])]
        batch = TrainingItem("toy", image=x, noise_std=torch.tensor(noise_std))
        value = loss(prior, batch, random, step).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        rate.step()
        if (step + 1) % (steps // 40) == 0:
            with torch.no_grad():
                curve[step + 1] = denoising_error(prior)
    return prior.requires_grad_(False), curve


trained = {
    "clean": train(Denoising(schedule), clean),
    "naive": train(Denoising(schedule), noisy),
    "SURE": train(Sure(schedule), noisy),
}
priors = {name: prior for name, (prior, _) in trained.items()}
curves = {name: curve for name, (_, curve) in trained.items()}

# %%
# ## Denoising
#
# The error of each at the noise level of the data, beside the two answers in closed form: the least error that any
# denoiser can have (MMSE), and the error of a perfectly learned naive prior.

best, naive_best = denoising_error(truth), denoising_error(naive_limit)
print(f"no denoising   {noise_std**2:.3f}   mean square error per coordinate")
for name, prior in priors.items():
    print(f"{name:12s}   {denoising_error(prior):.3f}")
print(f"exact MMSE     {best:.3f}")
print(f"exact naive    {naive_best:.3f}")

# %% [figure]
# SURE comes down to the same floor as training on clean points. The naive prior believes that the noise belongs to the
# points, and removes too little of it. After 3000 steps it is also above its own closed form, though it is as near to
# its limit as the others are to theirs: a small error of the network counts to second order at the best denoiser, and
# to first order elsewhere. More steps bring it nearer.

colors = {"clean": "C2", "naive": "C1", "SURE": "C0"}
figure, panel = plt.subplots(num="Denoising error while training", figsize=(8, 2.7))
for name, curve in curves.items():
    panel.plot(list(curve), list(curve.values()), color=colors[name], label=name)
for value, label in ((best, "exact MMSE"), (naive_best, "exact naive"), (noise_std**2, "no denoising")):
    panel.axhline(value, color="0.4", linewidth=0.8, linestyle="--")
    panel.annotate(label, (steps, value), xytext=(0, -10), textcoords="offset points", ha="right", color="0.3")
panel.set(xlabel="training step", ylabel="mean square error", ylim=(0.22, 0.68))
panel.legend(title="trained on", loc="center left", bbox_to_anchor=(1, 0.5))

# %% [figure]
# The same points before and after.

shown = {"truth": test_clean, "noisy": test_noisy}
shown |= {f"denoised: {name}": priors[name].denoise(test_noisy, noise_std) for name in ("naive", "SURE")}
figure, panels = plt.subplots(1, 4, num="Points: true, noisy, denoised", figsize=(8, 2.5), sharey=True)
for panel, (name, x), color in zip(panels, shown.items(), ("0.45", "0.45", "C1", "C0"), strict=True):
    panel.scatter(*x[:800].T, s=2.5, color=color, alpha=0.6, linewidths=0)
    panel.set(title=name, xlim=(-7, 7), ylim=(-7, 7), aspect="equal", xticks=(-5, 0, 5), yticks=(-5, 0, 5))
    panel.set_xlabel("$x_1$")
panels[0].set_ylabel("$x_2$")

# %%
# ## What the priors draw
#
# A prior of clean points should give clean points back. We walk all three down to `sigma = 0.2` and measure the
# standard deviation of the samples about the nearest centre, in each coordinate; in truth it is 0.5.

walk = Langevin(schedule.levels(60), repeats=5, step_size=0.2)
samples = {name: walk(prior, clean[:count], generators(0, "walk", draws=count)) for name, prior in priors.items()}
samples = {"truth": test_clean[:count]} | samples


def spread(x):
    distance, _ = torch.cdist(x, means).min(1)
    return float((distance.square().mean() / 2).sqrt())


spreads = {name: spread(x) for name, x in samples.items()}
for name, value in spreads.items():
    print(f"{name:6s} {value:.2f}")

# %% [figure]
# The naive prior draws noisy points: its clusters run together. The prior of SURE draws points that are too close to
# their centres. It has learned the law of *denoised* points, and a mean square estimate varies less than what it
# estimates: within a cluster by `0.5^2 / sqrt(0.5^2 + 0.8^2) = 0.27`. So the denoiser at the noise level of the data
# is as good as if it had seen clean data, but this prior does not tell how much the truth varies below that level.
# Expect the same of a posterior that is built on it.

figure, panels = plt.subplots(1, 4, num="Samples of the priors", figsize=(8, 2.5), sharey=True)
for panel, (name, x) in zip(panels, samples.items(), strict=True):
    panel.scatter(*x[:800].T, s=2.5, color=colors.get(name, "0.45"), alpha=0.6, linewidths=0)
    panel.set(title=f"{name}: spread {spreads[name]:.2f}", xlim=(-7, 7), ylim=(-7, 7), aspect="equal")
    panel.set(xlabel="$x_1$", xticks=(-5, 0, 5), yticks=(-5, 0, 5))
panels[0].set_ylabel("$x_2$")
