"""YAML of others, read within bounds. Without torch."""

from __future__ import annotations

from typing import Any

import yaml

from mri_score.errors import InputError

DEEPEST = 20
"""Deepest nesting of values."""


class BoundedLoader(yaml.SafeLoader):
    """A safe YAML loader that refuses aliases, which can stand for far more than the file holds, and deep nesting.

    Errors: InputError.
    """

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise InputError(
                f"line {event.start_mark.line + 1}: YAML aliases (*name) are not allowed; write the value out"
            )
        self.depth += 1
        if self.depth > DEEPEST:
            raise InputError(f"values are nested more than {DEEPEST} levels deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1
