"""Text files of others: regular files of a bounded size, as UTF-8, JSON within a bounded depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mri_score.errors import InputError
from mri_score.untrusted.names import require_plain_name


def read_text(path: str | Path, largest: int) -> str:
    """The text of a UTF-8 file of at most `largest` bytes.

    Errors: InputError for a missing or larger file, for anything that is no regular file, such as a pipe, which would
    wait for ever, and for other bytes.
    """
    path = Path(path)
    require_plain_name(path)
    try:
        if not path.is_file():
            raise InputError(f"cannot read {path}: there is no such file")
        with open(path, "rb") as file:
            content = file.read(largest + 1)
        if len(content) > largest:
            raise InputError(f"{path} is larger than {largest} bytes, more than a file of its kind has; is it another?")
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def read_json(path: str | Path, largest: int) -> Any:
    """The value of a JSON file of at most `largest` bytes. Errors: InputError as in `read_text`, and for no JSON."""
    text = read_text(path, largest)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: it is no JSON ({error}); copy or write it again") from error
