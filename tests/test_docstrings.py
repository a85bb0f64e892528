"""Docstrings of what users call: each parameter and each field of a dataclass is named, and that it raises.

Counted are the names that the package exports and those that the command line imports; of classes the constructor and
the public methods. What a base class says of a parameter need not be said again.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import mri_score

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / "mri_score"
SAID_AS = {"path": "path|files?|folder"}
"""Other words by which a parameter may be described."""
Definition = ast.ClassDef | ast.FunctionDef


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def classes() -> dict[str, ast.ClassDef]:
    """Every class of the package by its name."""
    found = (node for path in PACKAGE.rglob("*.py") for node in tree(path).body)
    return {node.name: node for node in found if isinstance(node, ast.ClassDef)}


def path_of(module: str) -> Path:
    place = PACKAGE.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def called() -> set[tuple[str, str]]:
    """(module, name) of what the package exports, and of what the command line imports from it."""
    found = {(home.removeprefix("mri_score."), name) for name, home in mri_score._HOMES.items()}
    for path in (CHECKOUT / "cli").rglob("*.py"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mri_score."):
                module = (node.module or "").removeprefix("mri_score.")
                found |= {(module, alias.name) for alias in node.names if not module.startswith("cli")}
    return found


def definition(module: str, name: str) -> Definition | None:
    """The function or class of this name; None for tables, numbers and what a module imports itself."""
    nodes = tree(path_of(module)).body if path_of(module).exists() else []
    return next((one for one in nodes if isinstance(one, ast.ClassDef | ast.FunctionDef) and one.name == name), None)


def parameters(function: ast.FunctionDef) -> list[str]:
    every = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    return [one.arg for one in every if one.arg not in ("self", "cls")]


def raises(function: ast.FunctionDef) -> bool:
    """Whether its own body raises an InputError."""
    thrown = (node.exc for node in ast.walk(function) if isinstance(node, ast.Raise) and node.exc is not None)
    return any("InputError" in ast.unparse(one) or "unknown_name" in ast.unparse(one) for one in thrown)


def said_of(node: ast.ClassDef, method: str | None = None) -> str:
    """What a class, its bases, and the method of this name in each of them say."""
    bodies = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == method]
    bases = [classes()[name] for one in node.bases if (name := ast.unparse(one)) in classes()]
    own = " ".join(ast.get_docstring(one) or "" for one in (node, *bodies))
    return " ".join([own, *(said_of(base, method) for base in bases)])


def left_out(function: ast.FunctionDef, text: str) -> Iterator[str]:
    if not text.strip():
        yield "a docstring"
    for name in parameters(function):
        if re.search(rf"(?<![\w.])({SAID_AS.get(name, name)})(?!\w)", text) is None:
            yield name
    if raises(function) and "Errors:" not in text:
        yield "Errors"


def fields_left_out(node: ast.ClassDef) -> Iterator[str]:
    """Fields of a dataclass that neither its docstring names nor a string below describes; methods are no fields."""
    if not any("dataclass" in ast.unparse(one) for one in node.decorator_list):
        return
    for field, below in zip(node.body, [*node.body[1:], None], strict=True):
        described = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and not described:
            name = field.target.id
            if not name.startswith("_") and re.search(rf"(?<![\w.]){name}(?!\w)", said_of(node)) is None:
                yield name


def missing(node: Definition) -> list[str]:
    """All that the docstrings of a function, or of a class and its public methods, leave out."""
    if isinstance(node, ast.FunctionDef):
        return [f"{node.name}: {one}" for one in left_out(node, ast.get_docstring(node) or "")]
    found = [] if ast.get_docstring(node) else [f"{node.name}: a docstring"]
    found += [f"{node.name}: {one}" for one in fields_left_out(node)]
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and (method.name == "__init__" or not method.name.startswith("_")):
            found += [f"{node.name}.{method.name}: {one}" for one in left_out(method, said_of(node, method.name))]
    return found


def by_module() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for module, name in sorted(called()):
        node = definition(module, name)
        found.setdefault(module, []).extend([] if node is None else missing(node))
    return found


@pytest.mark.parametrize(("module", "unsaid"), by_module().items())
def test_docstrings_name_every_parameter_field_and_error(module, unsaid):
    assert not unsaid, "\n".join(unsaid)


def test_the_check_sees_what_is_left_out():
    source = 'def f(a, b):\n    """What a is."""\n    raise InputError("no")\n\n\ndef g(a): ...\n\n\n'
    source += '@dataclass\nclass C:\n    """What a is."""\n\n    a: int\n    b: int\n    """What b is."""\n    c: int\n'
    found = [missing(node) for node in ast.parse(source).body]
    assert found == [["f: b", "f: Errors"], ["g: a docstring", "g: a"], ["C: c"]]
    assert len(called()) > 60 and ("reconstruction", "reconstruct") in called()
