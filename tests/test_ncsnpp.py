"""NCSN++ and DDPM: the published function and size of every variant, any image size, and derivatives."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from mri_score.errors import InputError
from mri_score.models.network import NetworkPrior
from mri_score.networks import NETWORKS
from mri_score.networks.ddpm import DDPM
from mri_score.networks.ncsnpp import NCSNpp
from mri_score.networks.ncsnpp_blocks import Attention, ResidualBlock
from mri_score.networks.ncsnpp_published import from_published, to_published, unseen

VP = {"embedding": "positional", "progressive_input": "none", "fir": ()}
CHURCH = {"progressive": "output_skip", "progressive_input": "input_skip"}
COUNTS = [  # published trainable parameters, of three channels
    (NCSNpp, {}, 62_758_787),
    (NCSNpp, {"blocks": 8}, 107_586_947),
    (NCSNpp, {"embedding": "positional", "levels": 1000}, 62_693_251),
    (NCSNpp, VP, 61_804_419),
    (NCSNpp, VP | {"blocks": 8}, 106_632_579),
    (NCSNpp, CHURCH | {"multipliers": (1, 1, 2, 2, 2, 2, 2), "blocks": 2, "attention": (4,)}, 65_574_421),
    (
        NCSNpp,
        CHURCH | {"width": 16, "multipliers": (1, 2, 4, 8, 16, 32, 32, 32), "blocks": 1, "attention": (6,)},
        105_785_880,
    ),
    (DDPM, {}, 35_218_947),
]

LADDER = {"embedding": "positional", "levels": 7, "sigma_max": 20.0, "sigma_min": 0.05}
VARIANTS = {  # arguments, and those among them that no tensor shows
    "cifar": ({"multipliers": [1, 2, 1], "blocks": 2, "attention": [0, 2]}, ()),
    "church": (CHURCH | {"multipliers": [1, 1, 3], "attention": [2], "channels": 3, "blocks": 2}, ()),
    "deep": (CHURCH | {"multipliers": [1, 2, 2, 2], "attention": [], "combine": "cat"}, ()),
    "cat alone": ({"progressive_input": "input_skip", "combine": "cat", "channels": 1}, ()),
    "residual both ways": ({"progressive": "residual", "multipliers": [2, 1, 1], "fir": []}, ()),
    "residual up": ({"progressive": "residual", "progressive_input": "none"}, ()),
    "discrete": (LADDER, ()),
    "ddpm++": ({"embedding": "positional", "progressive_input": "none", "fir": [], "published_input": False}, ()),
    "fourier and plain": ({"progressive_input": "none", "fir": []}, ("fir",)),
    "ddpm blocks": ({"block": "ddpm", "skip_rescale": False, "fir": [], "multipliers": [1, 2, 2]} | LADDER, ()),
    "ddpm blocks, filters": ({"block": "ddpm", "progressive": "residual"}, ("skip_rescale",)),
    "ddpm blocks, no convolutions": (
        CHURCH | {"block": "ddpm", "resample_conv": False, "skip_rescale": False, "attention": [0, 1]},
        (),
    ),
    "unconditional": ({"conditional": False, "skip_rescale": False}, ("skip_rescale",)),
    "one level": ({"multipliers": [2], "attention": [], "progressive_input": "none"}, ()),
    "one level, more blocks": ({"multipliers": [1], "attention": [], "blocks": 3, "progressive_input": "none"}, ()),
}


DEFAULTS = {
    "width": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "attention": [1],
    "block": "biggan",
    "fir": [1.0, 3.0, 3.0, 1.0],
    "resample_conv": True,
    "embedding": "fourier",
    "conditional": True,
    "progressive": "none",
    "progressive_input": "residual",
    "combine": "sum",
    "skip_rescale": True,
    "levels": 0,
    "sigma_max": 50.0,
    "sigma_min": 0.01,
    "channels": 2,
    "published_input": True,
}


class Published:
    """The release's network as one pass over numbered modules, which draws each weight where it is first used.

    Nothing of it is shared with the network under test: FIR resampling is written by zeros and strides. numbered:
    whether the resampling of skip pyramids is one of the numbered modules, as in the first releases.
    """

    def __init__(self, numbered=True, **arguments):
        self.numbered, self.a = numbered, arguments
        self.scale = 0.5**0.5 if arguments["skip_rescale"] else 1.0
        self.state = {}
        if arguments["levels"]:
            ends = math.log(arguments["sigma_max"]), math.log(arguments["sigma_min"])
            self.state["sigmas"] = torch.linspace(*ends, arguments["levels"], dtype=torch.float64).exp()

    def weight(self, name, *shape, mean=0.0):
        key = f"all_modules.{self.number}.{name}"
        if key not in self.state:
            spread = 0.3 if len(shape) == 1 else math.prod(shape[1:]) ** -0.5
            self.state[key] = mean + spread * torch.randn(*shape, dtype=torch.float64)
        return self.state[key]

    def layer(self, x, out, name="", size=3, **options):
        prefix = f"{name}." if name else ""
        weight = self.weight(f"{prefix}weight", out, x.shape[1], size, size)
        return functional.conv2d(x, weight, self.weight(f"{prefix}bias", out), **options)

    def nin(self, x, out, name):
        y = torch.einsum("bchw,cd->bdhw", x, self.weight(f"{name}.W", x.shape[1], out))
        return y + self.weight(f"{name}.b", out)[:, None, None]

    def linear(self, x, out, name=""):
        return x @ self.weight(f"{name}weight", out, x.shape[1]).T + self.weight(f"{name}bias", out)

    def norm(self, x, name=""):
        weight, bias = self.weight(f"{name}weight", x.shape[1], mean=1.0), self.weight(f"{name}bias", x.shape[1])
        return functional.group_norm(x, min(x.shape[1] // 4, 32), weight, bias, 1e-6)

    def filtered(self, x, gain, before, after):
        taps = torch.tensor(self.a["fir"], dtype=torch.float64)
        kernel = gain * torch.outer(taps, taps) / taps.sum() ** 2
        planes = functional.pad(x.flatten(0, 1)[:, None], (before, after, before, after))
        return functional.conv2d(planes, kernel.flip(0, 1)[None, None]).unflatten(0, x.shape[:2])[:, :, 0]

    def zeros_between(self, x):
        wide = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
        wide[..., ::2, ::2] = x
        return wide

    def bigger(self, x):
        if self.a["fir"]:
            return self.filtered(self.zeros_between(x), 4, 2, 1)
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def smaller(self, x):
        return self.filtered(x, 1, 1, 1)[..., ::2, ::2] if self.a["fir"] else functional.avg_pool2d(x, 2)

    def bigger_conv(self, x, out):
        if not self.a["fir"]:
            return self.layer(self.bigger(x), out, "Conv_0", padding=1)
        weight, bias = self.weight("Conv2d_0.weight", out, x.shape[1], 3, 3), self.weight("Conv2d_0.bias", out)
        wide = functional.conv2d(self.zeros_between(x)[..., :-1, :-1], weight, padding=2)
        return self.filtered(wide, 4, 1, 1) + bias[:, None, None]

    def smaller_conv(self, x, out):
        if not self.a["fir"]:
            return self.layer(functional.pad(x, (0, 1, 0, 1)), out, "Conv_0", stride=2)
        return self.layer(self.filtered(x, 1, 2, 2), out, "Conv2d_0", stride=2)

    def residual(self, x, out, resample=None):
        self.number += 1
        h = functional.silu(self.norm(x, "GroupNorm_0."))
        if resample:
            h, x = resample(h), resample(x)
        h = self.layer(h, out, "Conv_0", padding=1)
        if self.temb is not None:
            h = h + self.linear(functional.silu(self.temb), out, "Dense_0.")[:, :, None, None]
        h = self.layer(functional.silu(self.norm(h, "GroupNorm_1.")), out, "Conv_1", padding=1)
        if self.a["block"] == "ddpm" and x.shape[1] != out:
            x = self.nin(x, out, "NIN_0")
        elif x.shape[1] != out or resample:
            x = self.layer(x, out, "Conv_2", size=1)
        return (x + h) * self.scale

    def attention(self, x):
        self.number += 1
        h = self.norm(x, "GroupNorm_0.")
        q, k, v = (self.nin(h, x.shape[1], f"NIN_{n}") for n in range(3))
        w = torch.einsum("bchw,bcij->bhwij", q, k) * x.shape[1] ** -0.5
        w = w.flatten(3).softmax(-1).unflatten(3, x.shape[2:])
        return (x + self.nin(torch.einsum("bhwij,bcij->bchw", w, v), x.shape[1], "NIN_3")) * self.scale

    def resampled(self, x, by, by_conv):
        if self.a["block"] == "biggan":
            return self.residual(x, x.shape[1], by)
        self.number += 1
        return by_conv(x, x.shape[1]) if self.a["resample_conv"] else by(x)

    def head(self, x, out):
        self.number += 1
        x = functional.silu(self.norm(x))
        self.number += 1
        return self.layer(x, out, padding=1)

    def embedded(self, sigma):
        width = self.a["width"]
        if self.a["embedding"] == "fourier":
            self.number += 1
            angles = 2 * math.pi * sigma.log()[:, None] * self.weight("W", width)
        else:
            label = (self.state["sigmas"] - sigma[:, None]).abs().argmin(1) if self.a["levels"] else sigma.log()
            places = torch.arange(width // 2, dtype=torch.float64)
            angles = label[:, None] * torch.exp(places * -(math.log(10_000) / (width // 2 - 1)))
        temb = torch.cat([angles.sin(), angles.cos()], 1)
        if not self.a["conditional"]:
            return None
        self.number += 1
        temb = self.linear(temb, 4 * width)
        self.number += 1
        return self.linear(functional.silu(temb), 4 * width)

    def __call__(self, x, sigma):
        self.number = -1
        self.temb = self.embedded(sigma)
        channels, widths = x.shape[1], [multiplier * self.a["width"] for multiplier in self.a["multipliers"]]
        pyramid = x = 2 * x - 1 if self.a["published_input"] else x
        self.number += 1
        hs = [self.layer(x, self.a["width"], padding=1)]
        for level, width in enumerate(widths):
            for _ in range(self.a["blocks"]):
                h = self.residual(hs[-1], width)
                hs.append(self.attention(h) if level in self.a["attention"] else h)
            if level == len(widths) - 1:
                continue
            h = self.resampled(hs[-1], self.smaller, self.smaller_conv)
            if self.a["progressive_input"] == "input_skip":
                self.number += self.numbered
                pyramid = self.smaller(pyramid)
                self.number += 1
                entering = self.layer(pyramid, h.shape[1], "Conv", size=1)
                h = torch.cat([entering, h], 1) if self.a["combine"] == "cat" else entering + h
            elif self.a["progressive_input"] == "residual":
                self.number += 1
                h = pyramid = (self.smaller_conv(pyramid, h.shape[1]) + h) * self.scale
            hs.append(h)
        h = self.residual(hs[-1], hs[-1].shape[1])
        h = self.attention(h)
        h = self.residual(h, h.shape[1])
        for level in reversed(range(len(widths))):
            for _ in range(self.a["blocks"] + 1):
                h = self.residual(torch.cat([h, hs.pop()], 1), widths[level])
            h = self.attention(h) if level in self.a["attention"] else h
            deepest = level == len(widths) - 1
            if self.a["progressive"] == "output_skip":
                if not deepest:
                    self.number += self.numbered
                    pyramid = self.bigger(pyramid)
                pyramid = self.head(h, channels) + (0 if deepest else pyramid)
            elif self.a["progressive"] == "residual" and deepest:
                pyramid = self.head(h, h.shape[1])
            elif self.a["progressive"] == "residual":
                self.number += 1
                h = pyramid = (self.bigger_conv(pyramid, h.shape[1]) + h) * self.scale
            if level:
                h = self.resampled(h, self.bigger, self.bigger_conv)
        return pyramid if self.a["progressive"] == "output_skip" else self.head(h, channels)


def release(**arguments):
    """A published network of these arguments, with its weights drawn."""
    published = Published(**DEFAULTS | arguments)
    channels = published.a["channels"]
    published(torch.zeros(1, channels, 16, 16, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    return published


def imported(state, **overrides):
    arguments, weights = from_published(state, **overrides)
    network = NETWORKS[arguments.pop("name")](**arguments).double().eval()
    network.load_state_dict(weights)
    return network


def small(**arguments):
    """A random network with every part away from its start."""
    return imported(release(**arguments).state, **arguments)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(5)


def assert_same(a, b, tolerance=1e-6):
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance * float(b.abs().max()))


@pytest.mark.parametrize(("network", "arguments", "count"), COUNTS)
def test_parameter_counts_are_the_published_ones(network, arguments, count):
    with torch.device("meta"):
        built = network(channels=3, **arguments)
    assert sum(p.numel() for p in built.parameters()) == count


@pytest.mark.parametrize("file", ["ncsnpp_score_sde.pth", "ncsnpp_rewrite.pth"])
def test_published_weights_give_the_published_score(shared, file):
    folder = shared / "fixtures/checkpoints"
    saved = torch.load(folder / file, weights_only=True)["model"]
    known = torch.load(folder / "ncsnpp_rewrite_io.pt", weights_only=True)
    arguments, weights = from_published({key.removeprefix("module."): value for key, value in saved.items()})
    assert {"width": 16, "multipliers": [1, 2], "blocks": 1, "attention": [1]}.items() <= arguments.items()
    network = NETWORKS[arguments.pop("name")](**arguments).eval()
    network.load_state_dict(weights)
    with torch.no_grad():
        score = network(known["x"], known["sigma"].log()) / known["sigma"].view(-1, 1, 1, 1)
    for item, expected in zip(score, known["score"], strict=True):
        assert_same(item, expected, 1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_told_from_its_weights_and_is_the_published_function(variant):
    arguments, unseen = VARIANTS[variant]
    published = release(**arguments)
    overrides = {name: published.a[name] for name in unseen}
    inferred, _ = from_published(published.state, **overrides)
    ends = {name: pytest.approx(published.a[name]) for name in ("sigma_max", "sigma_min")}
    assert {key: inferred[key] for key in DEFAULTS} == published.a | ends
    x = torch.randn(2, published.a["channels"], 24, 16, dtype=torch.float64)
    sigma = published.state.get("sigmas", torch.tensor([0.2, 7.0], dtype=torch.float64))[[0, 1]]
    with torch.no_grad():
        assert_same(imported(published.state, **overrides)(x, sigma.log()), published(x, sigma))


BLOCKS = [("biggan", True), ("ddpm", True), ("ddpm", False)]
INPUTS = [("none", "sum"), ("residual", "sum"), ("input_skip", "sum"), ("input_skip", "cat")]
SKIPS = ("output_skip", "input_skip")
EVERY_COMBINATION = [
    {"block": block, "resample_conv": by_conv, "progressive": up, "progressive_input": into, "combine": combine,
     "fir": fir, "embedding": embedding, "conditional": conditional, "numbered": numbered,
     "blocks": 1 + number % 3, "attention": [[], [0], [1, 2], [2]][number % 4], "width": 4,
     "multipliers": [[1, 2, 2], [1, 1, 3], [2, 1, 2]][number % 3], "channels": 1 + number % 3,
     "skip_rescale": bool(number % 2), "published_input": bool(number // 2 % 2),
     **(LADDER if embedding == "positional" else {})}
    for number, ((block, by_conv), up, (into, combine), fir, embedding, conditional, numbered) in enumerate(
        itertools.product(BLOCKS, ("none", "output_skip", "residual"), INPUTS, ([1.0, 3.0, 3.0, 1.0], []),
                          ("fourier", "positional"), (True, False), (True, False))
    )
    if (conditional or number % 5 == 0) and (numbered or up in SKIPS or into in SKIPS)
]  # fmt: skip


def combinations_come_back(combinations):
    """Import gives the published function from the tensors and what `unseen` names; export gives the tensors again."""
    for arguments in combinations:
        published = release(**arguments)
        state = published.state
        asked = {name: arguments[name] for name in unseen(from_published(state)[0])}
        if arguments["embedding"] == "positional":  # DDPM's labels and a ladder are the same to the tensors
            asked["levels"] = arguments["levels"]
        inferred, _ = from_published(state, **asked)
        ends = {name: pytest.approx(published.a[name]) for name in ("sigma_max", "sigma_min")}
        assert {key: inferred[key] for key in DEFAULTS} == published.a | ends
        network = imported(state, **asked)
        x = torch.randn(1, arguments["channels"], 8, 12, dtype=torch.float64)
        sigma = state.get("sigmas", torch.tensor([0.2], dtype=torch.float64))[:1]
        with torch.no_grad():
            assert_same(network(x, sigma.log()), published(x, sigma))
        exported = to_published(network, inferred)
        if not arguments["numbered"] or not {arguments["progressive"], arguments["progressive_input"]} & set(SKIPS):
            expected = {key: value for key, value in state.items() if key != "sigmas"}
            assert exported.keys() == expected.keys()
            unused = () if arguments["conditional"] else ("all_modules.0.W",)
            assert all(torch.equal(exported[key], value) for key, value in expected.items() if key not in unused)
        again, _ = from_published(exported | {key: state[key] for key in ("sigmas",) if key in state}, **asked)
        assert again == inferred


def test_combinations_of_published_options_come_back_by_import_and_export():
    combinations_come_back(EVERY_COMBINATION[5::97])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_every_third_combination_of_published_options_comes_back(part):
    combinations_come_back(EVERY_COMBINATION[1::3][part::4])


def test_what_no_tensor_shows_is_as_in_the_published_configurations_or_as_told():
    state = release(progressive_input="none").state
    assert from_published(state)[0]["fir"] == [1, 3, 3, 1]
    assert from_published(state, fir=[])[0]["fir"] == []
    ladder = release(**LADDER | {"progressive_input": "none"}).state
    preserving, weights = from_published(ladder)
    assert (preserving["levels"], preserving["fir"], preserving["published_input"]) == (0, [], False)
    assert "embed.features.sigmas" not in weights
    exploding, weights = from_published(ladder, levels=7)
    torch.testing.assert_close(weights["embed.features.sigmas"], ladder["sigmas"])


def test_weights_of_other_networks_are_refused():
    with pytest.raises(InputError, match="no published NCSN.*no attention"):
        from_published({"begin_conv.weight": torch.zeros(8, 2, 3, 3)})
    state = release().state
    with pytest.raises(InputError, match=r"all_modules.7 \(GroupNorm_0.weight \(8,\)"):
        from_published(state | {"all_modules.7.Conv_0.weight": torch.zeros(16, 8, 5, 5)})
    with pytest.raises(InputError, match="give the arguments that are wrong"):
        from_published(state, blocks=2)
    with pytest.raises(InputError, match="modules"):
        from_published({key: value for key, value in state.items() if not key.startswith("all_modules.19")})


def test_ddpm_is_the_published_u_net():
    published = release(block="ddpm", **VP, skip_rescale=False, published_input=False)
    _, weights = from_published(published.state)
    network = DDPM(width=8, multipliers=(1, 2), blocks=1).double().eval()
    network.load_state_dict(weights)
    x, label = torch.randn(2, 2, 8, 12, dtype=torch.float64), torch.tensor([321.0, 3.0], dtype=torch.float64)
    with torch.no_grad():
        assert_same(network(x, label), published(x, label.exp()), 1e-4)  # the frequencies are stored in float32


def test_the_ncsn_row_gives_the_published_score_of_complex_images():
    published = release(**LADDER)
    prior = NetworkPrior(imported(published.state), "ncsn")
    x, sigma = torch.randn(2, 16, 12, dtype=torch.complex128), published.state["sigmas"][[0, 5]]
    with torch.no_grad():
        score = torch.view_as_real(prior.score(x, sigma)).movedim(-1, 1)
    assert_same(score, published(torch.view_as_real(x).movedim(-1, 1), sigma) / sigma.view(-1, 1, 1, 1))


def test_a_ladder_takes_the_nearest_level_in_the_logarithm():
    network = small(**LADDER)
    sigmas = network.embed.features.sigmas
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    step = (sigmas[2] / sigmas[3]).log()
    on = network(x, sigmas[2:3].log())
    torch.testing.assert_close(network(x, sigmas[2:3].log() - 0.49 * step), on)
    torch.testing.assert_close(network(x, sigmas[3:4].log() + 0.51 * step), on)
    assert not torch.allclose(network(x, sigmas[2:3].log() - 0.51 * step), on, rtol=1e-3)


@pytest.mark.parametrize("size", [(13, 18), (9, 16), (24, 7)])
def test_any_size_is_the_reflected_image_cropped(size):
    network = small(multipliers=[1, 1, 2])
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    (top, bottom), (left, right) = [(-side % 4 // 2, -side % 4 - -side % 4 // 2) for side in size]
    wide = functional.pad(x, (left, right, top, bottom), mode="reflect")
    with torch.no_grad():
        expected = network(wide, torch.zeros(1))[..., top : top + size[0], left : left + size[1]]
        torch.testing.assert_close(network(x, torch.zeros(1)), expected)


def test_bad_arguments_inputs_and_sizes_are_refused():
    with pytest.raises(InputError, match="network.progressive is 'skip'; known names: none, output_skip, residual"):
        NCSNpp(progressive="skip")
    network = small()
    with pytest.raises(InputError, match="1 x 9 .* sides of 2"):
        network(torch.zeros(1, 2, 1, 9), torch.zeros(1))
    with pytest.raises(ValueError, match="no extra input"):
        network(torch.zeros(1, 2, 8, 8), torch.zeros(1), torch.zeros(1, 1, 8, 8))


def test_an_item_does_not_depend_on_its_batch_mates():
    network = small()
    x, c_noise = torch.randn(3, 2, 12, 10, dtype=torch.float64), torch.tensor([-2.0, 0.5, 3.0])
    with torch.no_grad():
        torch.testing.assert_close(network(x, c_noise)[1:2], network(x[1:2], c_noise[1:2]))


def test_attention_is_the_same_with_and_without_gradients():
    attention = Attention(8).double()
    nn.init.normal_(attention.mix.weight)
    nn.init.normal_(attention.query.weight)
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        fused = attention(x)
    torch.testing.assert_close(fused, attention(x).detach())


def test_a_fresh_network_is_nearly_zero_and_its_blocks_their_shortcuts():
    block = ResidualBlock(64, 64, embedding=4, rescale=False)
    x = torch.randn(1, 64, 8, 8)
    torch.testing.assert_close(block(x, torch.zeros(1, 4)), x, rtol=0, atol=1e-3)
    assert float(block.conv1.weight.std()) == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    network = NCSNpp(width=8, multipliers=(1, 2), blocks=1)
    assert 0 < float(network(torch.randn(1, 2, 8, 8), torch.zeros(1)).abs().max()) < 1e-3


@pytest.mark.parametrize("variant", ["cifar", "church", "residual both ways", "ddpm blocks"])
def test_every_parameter_learns(variant):
    network = small(**VARIANTS[variant][0])
    x = torch.randn(2, network.enter.in_channels, 16, 24, dtype=torch.float64)
    network(x, torch.tensor([-1.0, 1.0])).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_checkpointing_computes_blocks_again_and_changes_no_gradient():
    plain = small(dropout=0.3).train()
    lean = small(dropout=0.3, checkpointing=True).train()
    lean.load_state_dict(plain.state_dict())
    calls = []
    lean.down[0].steps[0].block.conv1.register_forward_hook(lambda *_: calls.append(None))
    x, c_noise = torch.randn(2, 2, 12, 10, dtype=torch.float64), torch.tensor([-1.0, 1.0])
    gradients = []
    for network in (plain, lean):
        torch.manual_seed(6)
        inputs = x.clone().requires_grad_()
        network(inputs, c_noise).square().sum().backward()
        gradients.append([inputs.grad, *(p.grad for p in network.parameters())])
    assert len(calls) == 2
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_derivatives_of_both_orders_agree_with_differences(checkpointing):
    network = small(checkpointing=checkpointing)
    x, u, v = torch.randn(3, 1, 2, 9, 8, dtype=torch.float64)
    c_noise, h = torch.zeros(1), 1e-5

    def value(x):
        return network(x, c_noise).square().mean()

    def slope(x):
        leaf = x.clone().requires_grad_()
        return (torch.autograd.grad(value(leaf), leaf)[0] * u).sum()

    leaf = x.clone().requires_grad_()
    first = torch.autograd.grad(value(leaf), leaf, create_graph=True)[0]
    second = torch.autograd.grad((first * u).sum(), leaf)[0]
    with torch.no_grad():
        difference = (value(x + h * u) - value(x - h * u)) / (2 * h)
    torch.testing.assert_close((first * u).sum(), difference, rtol=1e-6, atol=0)
    difference = (slope(x + h * v) - slope(x - h * v)) / (2 * h)
    torch.testing.assert_close((second * v).sum(), difference, rtol=1e-5, atol=0)
