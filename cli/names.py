"""Names as values of options: checked before torch is imported, and completed by the shell."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from mri_score.errors import unknown_name
from mri_score.methods import INPAINTING, METHODS, ONE_CHANNEL_USES, WALKS

# The names of tables in modules that import torch, repeated here; a test compares them.
BASELINES = ("zero-filled", "cg-sense", "pocs", "l1-wavelet", "tv", "pnp-bm3d", "bart-l1-wavelet", "bart-tv")
MASKS = (
    "variable-density", "random", "fastmri-random", "equispaced", "equispaced_fraction", "magic", "magic_fraction",
    "poisson-disc",
)  # fmt: skip
DEEPINV = ("deepinv-pigdm", "deepinv-mmps", "deepinv-dps", "deepinv-diffpir")
MASK_FILES = (".npy", ".h5")
OPERATORS = ("torch", "sigpy")
PRECISIONS = ("auto", "float32", "bfloat16")

COMMAND_LINE = "mri_score.command_line"
"""Key of the command line, as it was typed, in the context of a command."""


class Name(click.ParamType):
    """One of several names, or with `several` a list such as `a,b`, or none. what: what is named, for messages."""

    name = "name"

    def __init__(self, what: str, known: Iterable[str], several: bool = False) -> None:
        self.what, self.known, self.several = what, list(known), several

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        for one in str(value).split(",") if self.several else [value]:
            if not self.accepts(one.strip()):
                raise unknown_name(self.what, one.strip(), self.known)
        return value

    def accepts(self, name: str) -> bool:
        """Whether a name is allowed."""
        return name in self.known or (self.several and name in ("", "none"))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",") if self.several else ("", "", incomplete)
        return [CompletionItem(f"{before}{comma}{name}") for name in self.known if name.startswith(last)]


class MaskName(Name):
    """A sampling pattern, or a file with a mask."""

    def accepts(self, name: str) -> bool:
        return super().accepts(name) or Path(name).suffix in MASK_FILES

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [*super().shell_complete(ctx, param, incomplete), CompletionItem(incomplete, type="file")]


class PriorName(click.ParamType):
    """A bundled prior, a run folder or a .safetensors file. Whether there is one is checked when it is read."""

    name = "prior"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from mri_score.priors.installed import installed_priors
        from mri_score.priors.record import bundled_priors

        known = bundled_priors() | installed_priors()
        names = [CompletionItem(name) for name in known if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


METHOD = Name("the method", METHODS)
METHOD_LIST = Name("the method", [*METHODS, *DEEPINV], several=True)
SAMPLER = Name("the method", dict.fromkeys([*WALKS, *INPAINTING]))
BASELINE_LIST = Name("the baseline", BASELINES, several=True)
OPERATOR = Name("the operator", OPERATORS)
ONE_CHANNEL_USE = Name("the use of a prior of one channel", ONE_CHANNEL_USES)
PRECISION = Name("the precision", PRECISIONS)
MASK = MaskName("the mask", MASKS)
PRIOR = PriorName()
