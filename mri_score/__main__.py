"""python -m mri_score: the command line."""

from mri_score.cli import main

main(prog_name="mri-score")
