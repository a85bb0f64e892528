"""The U-Net of DDPM, a variant of NCSN++."""

from __future__ import annotations

from collections.abc import Sequence

from mri_score.networks.ncsnpp import NCSNpp


class DDPM(NCSNpp):
    """The U-Net of DDPM: `NCSNpp` with its blocks, plain resampling, a positional embedding and no pyramid.

    Without `levels`, c_noise is the label 0 ... 999 of a variance-preserving diffusion.
    Reference: Ho et al., Denoising diffusion probabilistic models, NeurIPS 2020.
    """

    def __init__(
        self,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (1,),
        levels: int = 0,
        sigma_max: float = 50.0,
        sigma_min: float = 0.01,
        dropout: float = 0.0,
        channels: int = 2,
        published_input: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(
            width,
            multipliers,
            blocks,
            attention,
            block="ddpm",
            fir=(),
            embedding="positional",
            progressive_input="none",
            skip_rescale=False,
            dropout=dropout,
            levels=levels,
            sigma_max=sigma_max,
            sigma_min=sigma_min,
            channels=channels,
            published_input=published_input,
            checkpointing=checkpointing,
        )
