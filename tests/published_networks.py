"""The published networks of NCSN, NCSNv2 and EDM as functions of a state dict, written from papers and facts.

Nothing of them is shared with the networks under test. Each takes every tensor by its published name, and `Weights`
keeps count of the names, so that a state dict with a name too many or too few fails.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional


class Weights:
    """Tensors by name. Without a state they are drawn where they are first used, which makes a random checkpoint."""

    def __init__(self, state=None):
        self.state, self.used, self.draws = dict(state or {}), set(), state is None

    def __call__(self, name, *shape, mean=0.0):
        if self.draws and name not in self.state:
            spread = 0.3 if len(shape) == 1 else math.prod(shape[1:]) ** -0.5
            self.state[name] = mean + spread * torch.randn(*shape)
        self.used.add(name)
        assert tuple(self.state[name].shape) == shape, name
        return self.state[name]

    def conv(self, x, name, out, size=3, bias=True, **options):
        weight = self(f"{name}.weight", out, x.shape[1], size, size)
        return functional.conv2d(x, weight, self(f"{name}.bias", out) if bias else None, **options)


def refinenet(w, x, label, *, depth, width, levels=0, published_input=True):
    """F(x) of NCSNv2's networks, or of NCSN's (levels: its number of labels, label: of each item)."""
    elu, channels = functional.elu, x.shape[1]

    def norm(x, name):
        c = x.shape[1]
        if levels:
            gamma, alpha, beta = w(f"{name}.embed.weight", levels, 3 * c)[label].chunk(3, 1)
        else:
            gamma, alpha, beta = (
                w(f"{name}.{part}", c, mean=part != "beta")[None] for part in ("gamma", "alpha", "beta")
            )
        means = x.mean((2, 3))
        shift = (means - means.mean(1, keepdim=True)) / torch.sqrt(means.var(1, keepdim=True) + 1e-5)
        spread = torch.sqrt(x.var((2, 3), unbiased=False, keepdim=True) + 1e-5)
        plain = (x - means[:, :, None, None]) / spread
        return gamma[..., None, None] * (plain + (alpha * shift)[..., None, None]) + beta[..., None, None]

    def residual(x, name, out, halve=False, dilation=1, first=False):
        h = elu(norm(x, f"{name}.normalize1"))
        inner = x.shape[1] if first else out
        pad = {"padding": dilation, "dilation": dilation}
        if halve and dilation == 1:
            h = w.conv(h, f"{name}.conv1", x.shape[1], padding=1)
            h = w.conv(elu(norm(h, f"{name}.normalize2")), f"{name}.conv2.conv", out, padding=1)
            return functional.avg_pool2d(h, 2) + functional.avg_pool2d(w.conv(x, f"{name}.shortcut.conv", out, 1), 2)
        h = w.conv(h, f"{name}.conv1", inner, **pad)
        h = w.conv(elu(norm(h, f"{name}.normalize2")), f"{name}.conv2", out, **pad)
        if first:
            return h + w.conv(x, f"{name}.shortcut", out, **pad)
        return h + x

    def chain(x, name, blocks):
        for block in range(1, blocks + 1):
            start = x
            for stage in (1, 2):
                if levels:
                    x = norm(x, f"{name}.{block}_{stage}_norm")
                x = w.conv(elu(x), f"{name}.{block}_{stage}_conv", x.shape[1], bias=False, padding=1)
            x = x + start
        return x

    def refine(inputs, name, out, end=False):
        inputs = [chain(one, f"{name}.adapt_convs.{number}", 2) for number, one in enumerate(inputs)]
        x = inputs[0]
        if len(inputs) > 1:
            parts = []
            for number, one in enumerate(inputs):
                one = norm(one, f"{name}.msf.norms.{number}") if levels else one
                one = w.conv(one, f"{name}.msf.convs.{number}", out, padding=1)
                parts.append(functional.interpolate(one, inputs[0].shape[2:], mode="bilinear", align_corners=True))
            x = sum(parts)
        x = path = elu(x)
        for number in range(2):
            if levels:
                path = functional.avg_pool2d(norm(path, f"{name}.crp.norms.{number}"), 5, 1, 2)
            else:
                path = functional.max_pool2d(path, 5, 1, 2)
            path = w.conv(path, f"{name}.crp.convs.{number}", out, bias=False, padding=1)
            x = x + path
        return chain(x, f"{name}.output_convs", 3 if end else 1)

    stages = {
        "low": [("res1", 1, 0, 1), ("res2", 2, 1, 1), ("res3", 2, 1, 2), ("res4", 2, 1, 4)],
        "medium": [("res1", 1, 0, 1), ("res2", 2, 1, 1), ("res3", 2, 1, 1), ("res4", 4, 1, 2), ("res5", 4, 1, 4)],
        "large": [("res1", 1, 0, 1), ("res2", 2, 1, 1), ("res3", 2, 1, 1), ("res31", 2, 1, 1), ("res4", 4, 1, 2),
                  ("res5", 4, 1, 4)],
    }[depth]  # fmt: skip
    ups = {
        "low": [("refine1", 2), ("refine2", 2), ("refine3", 1), ("refine4", 1)],
        "medium": [("refine1", 4), ("refine2", 2), ("refine3", 2), ("refine4", 1), ("refine5", 1)],
        "large": [("refine1", 4), ("refine2", 2), ("refine31", 2), ("refine3", 2), ("refine4", 1), ("refine5", 1)],
    }[depth]
    h = w.conv(2 * x - 1 if published_input else x, "begin_conv", width, padding=1)
    skips = []
    for name, multiple, halve, dilation in stages:
        h = residual(h, f"{name}.0", multiple * width, bool(halve), dilation, first=bool(halve))
        h = residual(h, f"{name}.1", multiple * width, dilation=dilation)
        skips.append(h)
    h = refine([skips.pop()], ups[0][0], ups[0][1] * width)
    for name, multiple in ups[1:]:
        h = refine([skips.pop(), h], name, multiple * width, end=not skips)
    return w.conv(elu(norm(h, "normalizer")), "end_conv", channels, padding=1)


def edm_network(
    w, x, c_noise, *, kind, width, multipliers, blocks, attention, embedding="positional", noise_features=1, features=4,
    encoder="standard", decoder="standard", fir=(1.0, 1.0), prefix="", side=0,
):  # fmt: skip
    """F(x, c_noise) of EDM's SongUNet (song) or DhariwalUNet (dhariwal); side: the resolution in the names."""
    silu, song, channels = functional.silu, kind == "song", x.shape[1]
    side = side or x.shape[-1]
    taps = torch.tensor(fir)
    kernel = torch.outer(taps, taps) / taps.sum() ** 2

    def filtered(x, name, change):
        f = (
            w.state.setdefault(f"{name}.resample_filter", kernel[None, None])
            if w.draws
            else w.state[f"{name}.resample_filter"]
        )
        w.used.add(f"{name}.resample_filter")
        margin = (len(taps) - 1) // 2
        planes = x.flatten(0, 1)[:, None]
        if change == "up":
            wide = planes.new_zeros(len(planes), 1, 2 * x.shape[2], 2 * x.shape[3])
            wide[..., ::2, ::2] = planes
            left = len(taps) - 1 - margin  # the transpose of a strided convolution
            wide = functional.pad(wide, (left, margin, left, margin))
            found = functional.conv2d(wide, 4 * f.flip(2, 3))
        else:
            found = functional.conv2d(functional.pad(planes, (margin,) * 4), f)[..., ::2, ::2]
        return found.unflatten(0, x.shape[:2])[:, :, 0]

    def norm(x, name, eps):
        weight, bias = w(f"{name}.weight", x.shape[1], mean=1.0), w(f"{name}.bias", x.shape[1])
        return functional.group_norm(x, min(32, x.shape[1] // 4), weight, bias, eps)

    def linear(x, name, out):
        return x @ w(f"{name}.weight", out, x.shape[1]).T + w(f"{name}.bias", out)

    def block(x, name, out, change="", attends=False):
        name, eps = f"{prefix}{name}", 1e-6 if song else 1e-5
        start = x
        h = silu(norm(x, f"{name}.norm0", eps))
        h = w.conv(filtered(h, f"{name}.conv0", change) if change else h, f"{name}.conv0", out, padding=1)
        if song:
            h = silu(norm(h + linear(emb, f"{name}.affine", out)[:, :, None, None], f"{name}.norm1", eps))
        else:
            scale, shift = linear(emb, f"{name}.affine", 2 * out)[:, :, None, None].chunk(2, 1)
            h = silu(shift + norm(h, f"{name}.norm1", eps) * (scale + 1))
        h = w.conv(h, f"{name}.conv1", out, padding=1)
        if change or start.shape[1] != out:
            start = filtered(start, f"{name}.skip", change) if change else start
            start = w.conv(start, f"{name}.skip", out, 1) if song or start.shape[1] != out else start
        x = (h + start) * (0.5**0.5 if song else 1)
        heads = 1 if song else out // 64
        if attends and heads:
            qkv = w.conv(norm(x, f"{name}.norm2", eps), f"{name}.qkv", 3 * out, 1)
            q, k, v = qkv.reshape(len(x) * heads, out // heads, 3, -1).unbind(2)
            weights = torch.einsum("ncq,nck->nqk", q, k / (out // heads) ** 0.5).softmax(2)
            x = w.conv(torch.einsum("nqk,nck->ncq", weights, v).reshape(x.shape), f"{name}.proj", out, 1) + x
            x = x * (0.5**0.5 if song else 1)
        return x

    def name(level, part):
        return f"{side >> level}x{side >> level}_{part}"

    half = noise_features * width // 2
    if embedding == "fourier":
        angles = torch.outer(c_noise, 2 * math.pi * w(f"{prefix}map_noise.freqs", half))
    else:
        angles = torch.outer(c_noise, (1 / 10000) ** (torch.arange(half) / (half - (1 if song else 0))))
    emb = torch.cat([angles.sin(), angles.cos()] if song else [angles.cos(), angles.sin()], 1)
    emb = silu(linear(emb, f"{prefix}map_layer0", features * width))
    emb = silu(linear(emb, f"{prefix}map_layer1", features * width))

    aux = x
    x = w.conv(x, f"{prefix}enc.{name(0, 'conv')}", width * (1 if song else multipliers[0]), padding=1)
    skips = [x]
    for level, multiple in enumerate(multipliers):
        if level:
            x = block(x, f"enc.{name(level, 'down')}", x.shape[1], "down")
            if encoder == "skip":
                aux = filtered(aux, f"{prefix}enc.{name(level, 'aux_down')}", "down")
                x = x + w.conv(aux, f"{prefix}enc.{name(level, 'aux_skip')}", x.shape[1], 1)
            elif encoder == "residual":
                part = f"{prefix}enc.{name(level, 'aux_residual')}"
                margin = 1 + (len(taps) - 1) // 2
                h = functional.conv2d(aux, w(f"{part}.weight", x.shape[1], aux.shape[1], 3, 3), padding=margin)
                f = w.state.setdefault(f"{part}.resample_filter", kernel[None, None])
                w.used.add(f"{part}.resample_filter")
                h = functional.conv2d(h.flatten(0, 1)[:, None], f)[..., ::2, ::2].unflatten(0, h.shape[:2])[:, :, 0]
                x = aux = (x + h + w(f"{part}.bias", x.shape[1])[:, None, None]) / 2**0.5
            skips.append(x)
        for number in range(blocks):
            x = block(x, f"enc.{name(level, f'block{number}')}", multiple * width, attends=level in attention)
            skips.append(x)
    out = None
    for level, multiple in reversed(list(enumerate(multipliers))):
        if level == len(multipliers) - 1:
            x = block(x, f"dec.{name(level, 'in0')}", x.shape[1], attends=True)
            x = block(x, f"dec.{name(level, 'in1')}", x.shape[1])
        else:
            x = block(x, f"dec.{name(level, 'up')}", x.shape[1], "up")
        for number in range(blocks + 1):
            attends = level in attention and (not song or number == blocks)
            x = block(
                torch.cat([x, skips.pop()], 1),
                f"dec.{name(level, f'block{number}')}",
                multiple * width,
                attends=attends,
            )
        if song and (decoder == "skip" or not level):
            if decoder == "skip" and out is not None:
                out = filtered(out, f"{prefix}dec.{name(level, 'aux_up')}", "up")
            h = silu(norm(x, f"{prefix}dec.{name(level, 'aux_norm')}", 1e-6))
            h = w.conv(h, f"{prefix}dec.{name(level, 'aux_conv')}", channels, padding=1)
            out = h if out is None else out + h
    return out if song else w.conv(silu(norm(x, f"{prefix}out_norm", 1e-5)), f"{prefix}out_conv", channels, padding=1)
