"""The same mask seed gives the same mask in `compare` and in `reconstruct`."""

from __future__ import annotations

import pytest
import torch

from mri_score.benchmark.subject import Subjects
from mri_score.data.scan import Scan, Undersampling
from mri_score.readers.fastmri import FastMRI, write_fastmri
from mri_score.simulation.phantom import phantom


@pytest.mark.parametrize("law", ["variable-density", "random", "poisson-disc"])
def test_compare_and_reconstruct_share_their_masks(tmp_path, law):
    write_fastmri(tmp_path / "scan.h5", phantom((48, 40), coils=4).kspace)
    file = FastMRI(tmp_path / "scan.h5")
    masks = []
    for seed in (0, 1):
        compared = Subjects(file).find(0, Undersampling(3.0, law, seed=seed)).acquisition.mask
        masks.append(Scan(file, Undersampling(3.0, law, None, seed, -1)).acquisition(0).mask)
        assert torch.equal(compared, masks[-1])
    assert not torch.equal(*masks)
