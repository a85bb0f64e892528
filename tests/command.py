"""The command line in this process, for tests."""

from __future__ import annotations

from click.testing import CliRunner

from mri_score.cli import main


def mri_score(*arguments, code=0):
    """Run a command in this process; its output."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def refused(*arguments, code=2):
    """Run a command that must fail: exit code 2, or 1 where some files are done; one message, no traceback."""
    output = mri_score(*arguments, code=code)
    assert "Traceback" not in output
    assert output.count("Error:") == 1, output
    return output
