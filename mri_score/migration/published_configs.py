"""Configs of other projects as sections of plain values: YAML, JSON, and Python modules, which are never executed."""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mri_score.errors import InputError
from mri_score.untrusted.bounded_yaml import DEEPEST, BoundedLoader
from mri_score.untrusted.text import read_text

LARGEST = 1 << 17
PARENTS = 4
"""Folders above a module in which the modules that it imports are looked for."""


@dataclass(frozen=True)
class PublishedConfig:
    """path: of the file. sections: its keys and values, nested as there. notes: what could not be read, and where."""

    path: Path
    sections: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def read_published_config(path: str | Path) -> PublishedConfig:
    """Read a config of another project: .yml, .yaml, .json, or a module (.py) that sets attributes of a config.

    A YAML file may hold a pickled argparse.Namespace, as the log folders of NCSN and NCSNv2 do, and the `defaults` of
    Hydra, whose files are looked for beside it. A module is parsed, never executed: assignments of constants in its
    function get_config or in the constructor of its config class are read, and the modules that these build on if they
    lie beside it.
    Errors: InputError for a missing or damaged file, and for one without keys.
    """
    path = Path(path)
    text = read_text(path, LARGEST)
    notes: list[str] = []
    try:
        if path.suffix == ".py":
            found = _Modules(notes).config(path, text)
        elif path.suffix == ".json":
            found = json.loads(text)
        else:
            found = yaml.load(text, Loader=_Loader)
            if isinstance(found, dict) and isinstance(found.get("defaults"), list):
                found = _composed(path, found, notes)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError, SyntaxError) as error:
        raise InputError(f"{path} cannot be read as a config: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict) or not found:
        raise InputError(f"{path} holds no keys of a config")
    return PublishedConfig(path, found, notes)


class _Loader(BoundedLoader):
    """A bounded loader that reads a pickled argparse.Namespace as a dict, tuples as lists, and no other class."""


def _mapping(loader: yaml.SafeLoader, node: Any) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


def _sequence(loader: yaml.SafeLoader, node: Any) -> list[Any]:
    return loader.construct_sequence(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:python/object:argparse.Namespace", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _sequence)
_Loader.add_implicit_resolver(  # YAML reads 1e-4 as text
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _composed(path: Path, found: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """The keys of a Hydra config and of the files that its `defaults` name."""
    sections: dict[str, Any] = {}
    for entry in found["defaults"]:
        group, name = next(iter(entry.items())) if isinstance(entry, dict) and entry else ("", entry)
        other = path.parent / str(group) / f"{name}.yaml"
        if other.is_file():
            sections |= yaml.load(read_text(other, LARGEST), Loader=_Loader) or {}
        elif name != "_self_":
            notes.append(f"defaults: {other} is not there; its keys are not read")
    return sections | {key: value for key, value in found.items() if key not in ("defaults", "hydra")}


# ---- Modules.

OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}  # fmt: skip


class _Unread(Exception):
    """An expression that is no constant."""


class _Modules:
    """The attributes that a config module sets, without running it."""

    def __init__(self, notes: list[str]) -> None:
        self.notes, self.depth = notes, 0

    def config(self, path: Path, text: str) -> dict[str, Any]:
        tree = ast.parse(text)
        parts = {node.name: node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
        imported = {
            alias.asname or alias.name: (node.module or "")
            for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
        }  # fmt: skip
        for name in ("get_config", "get_default_configs"):
            if name in parts:
                return self._function(path, parts[name], parts, imported)
        classes = [node for node in parts.values() if isinstance(node, ast.ClassDef) and _constructor(node)]
        named = [node for node in classes if "config" in node.name.lower()] or classes
        if named:
            return self._class(path, named[-1], parts, imported)
        return self._body(path, tree.body, {}, parts, imported)

    def _class(self, path: Path, node: ast.ClassDef, parts: Mapping[str, Any], imported: Mapping[str, str]) -> dict:
        root: dict[str, Any] = {}
        for base in node.bases:
            if isinstance(base, ast.Name):
                root |= self._named(path, base.id, parts, imported)
        constructor = _constructor(node)
        return root if constructor is None else self._body(path, constructor.body, root, parts, imported)

    def _function(self, path: Path, node: Any, parts: Mapping[str, Any], imported: Mapping[str, str]) -> dict[str, Any]:
        return self._body(path, node.body, {}, parts, imported)

    def _named(self, path: Path, name: str, parts: Mapping[str, Any], imported: Mapping[str, str]) -> dict[str, Any]:
        """The config that a function or class of this or of an imported module makes."""
        self.depth += 1
        try:
            if self.depth > DEEPEST:
                raise InputError(f"{path}: its configs build on one another without an end")
            if name in parts:
                node = parts[name]
                make = self._class if isinstance(node, ast.ClassDef) else self._function
                return make(path, node, parts, imported)
            if name in imported:
                place = Path(*imported[name].split(".")).with_suffix(".py")
                for folder in list(path.resolve().parents)[:PARENTS]:
                    if (folder / place).is_file():
                        return self.config(folder / place, read_text(folder / place, LARGEST))
                self.notes.append(f"{path.name} builds on {name} of {place}, which is not there; its keys are not read")
            return {}
        finally:
            self.depth -= 1

    def _body(
        self,
        path: Path,
        body: list[ast.stmt],
        root: dict[str, Any],
        parts: Mapping[str, Any],
        imported: Mapping[str, str],
    ) -> dict[str, Any]:
        names: dict[str, Any] = {"self": root, "config": root}
        for node in body:
            if isinstance(node, ast.Assign):
                try:
                    self._assign(path, node.targets, node.value, names, parts, imported)
                except _Unread:
                    self.notes.append(f"{path.name}, line {node.lineno}: {ast.unparse(node)} is no constant; not read")
            elif isinstance(node, ast.Return) and isinstance(node.value, ast.Name):
                return names.get(node.value.id, root)
        return names["self"] if names["self"] else names["config"]

    def _assign(
        self, path: Path, targets: list[ast.expr], value: ast.expr, names: dict[str, Any], parts: Mapping[str, Any],
        imported: Mapping[str, str],
    ) -> None:  # fmt: skip
        """a = b = value: all targets get the same section or number."""
        if isinstance(value, ast.Call):
            called = ast.unparse(value.func)
            if called.endswith("ConfigDict") and not value.args:
                found: Any = {}
            elif isinstance(value.func, ast.Name) and (called in parts or called in imported):
                if any(isinstance(target, ast.Attribute) for target in targets):  # the paths of a class of its own
                    return
                found = self._named(path, called, parts, imported)
            else:
                raise _Unread
        else:
            found = self._value(value, names)
        for target in targets:
            if isinstance(target, ast.Name):
                names[target.id] = found
            elif isinstance(target, ast.Attribute):
                self._place(target.value, names)[target.attr] = found
            else:
                raise _Unread

    def _place(self, node: ast.expr, names: Mapping[str, Any]) -> dict[str, Any]:
        """The section that an expression such as config.model stands for; made if it is not there."""
        if isinstance(node, ast.Name) and isinstance(names.get(node.id), dict):
            return names[node.id]
        if isinstance(node, ast.Attribute):
            found = self._place(node.value, names).setdefault(node.attr, {})
            if isinstance(found, dict):
                return found
        raise _Unread

    def _value(self, node: ast.expr, names: Mapping[str, Any]) -> Any:
        if isinstance(node, ast.Attribute):
            place = self._place(node.value, names)
            return place.setdefault(node.attr, {})
        if isinstance(node, ast.Name) and node.id in names:
            return names[node.id]
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
            left, right = self._value(node.left, names), self._value(node.right, names)
            if isinstance(left, (int, float)) and isinstance(right, (int, float)):
                try:
                    return OPERATIONS[type(node.op)](left, right)
                except ArithmeticError as error:
                    raise _Unread from error
            raise _Unread
        try:
            found = ast.literal_eval(node)
        except (ValueError, TypeError, MemoryError, RecursionError) as error:
            raise _Unread from error
        return list(found) if isinstance(found, tuple) else found


def _constructor(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
