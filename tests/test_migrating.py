"""docs/migrating.md: every command and option that it names exists, and every flag of the seeds has a row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mri_score.cli import COMMANDS, main

PAGE = Path(__file__).parents[1] / "docs" / "migrating.md"
if not PAGE.exists():
    pytest.skip("docs/migrating.md is not beside the tests", allow_module_level=True)
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_command_and_option_exists():
    commands = re.findall(r"mri-score ([a-z-]+)([^`\n#]*)", TEXT)
    assert len(commands) > 25
    for name, rest in commands:
        assert name in COMMANDS, name
        known = {option for one in main.get_command(None, name).params for option in (*one.opts, *one.secondary_opts)}
        known |= {"--help", "--verbose"}
        options = {word for word in rest.split() if re.match(r"--?[a-z]", word)}
        assert options <= known, (name, options - known)
        needed = {option for one in main.get_command(None, name).params if one.required for option in one.opts}
        if "--help" not in options and any(word.startswith("-") for word in needed):
            assert options & needed, (name, needed)
        arguments = [one for one in main.get_command(None, name).params if one.param_type_name == "argument"]
        words = rest.split()
        assert arguments or not words or words[0].startswith("-"), (name, words)


@pytest.mark.parametrize(
    "flag",
    ["--config_path", "--doc", "--exp", "--test", "--sample", "--fast_fid", "--resume_training", "-i", "--ni",
     "--comment", "--verbose", "--seed", "--runner", "--run", "-o", "--mode", "--user_logging_level",
     "--training_from_scratch", "--sampling_from_epoch"],
)  # fmt: skip
def test_every_flag_of_the_seeds_has_a_row(flag):
    theirs = [row.split(" | ")[0] for row in TEXT.splitlines() if row.startswith("| ")]
    assert [cell for cell in theirs if re.search(rf"{flag}(?![a-z_])", cell)]
