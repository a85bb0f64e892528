"""Docstrings of what users call: each parameter is named, and that it raises.

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
NOT_YET = {
    "benchmark.comparison",
    "benchmark.ledger",
    "benchmark.summary",
    "data.scan",
    "evaluation.contact_sheet",
    "evaluation.intervals",
    "evaluation.panel",
    "evaluation.report",
    "experiment",
    "pipeline.denoise",
    "pipeline.output",
    "pipeline.result",
    "pipeline.volume",
    "readers.maps",
    "sample_quality.checkpoints",
    "sample_quality.features",
    "sample_quality.images",
    "training.loop",
}
"""Modules whose docstrings still leave something out; one that is clean leaves the list, and none is to be added."""
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


def missing(node: Definition) -> list[str]:
    """All that the docstrings of a function, or of a class and its public methods, leave out."""
    if isinstance(node, ast.FunctionDef):
        return [f"{node.name}: {one}" for one in left_out(node, ast.get_docstring(node) or "")]
    found = [] if ast.get_docstring(node) else [f"{node.name}: a docstring"]
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
def test_docstrings_name_every_parameter_and_error(module, unsaid):
    if module in NOT_YET:
        assert unsaid, f"{module} is clean: take it from the list"
    else:
        assert not unsaid, "\n".join(unsaid)


def test_nothing_that_the_package_exports_is_on_the_list():
    assert not {home.removeprefix("mri_score.") for home in mri_score._HOMES.values()} & NOT_YET


def test_the_check_sees_what_is_left_out():
    source = 'def f(a, b):\n    """What a is."""\n    raise InputError("no")\n\n\ndef g(a): ...\n'
    assert [missing(node) for node in ast.parse(source).body] == [["f: b", "f: Errors"], ["g: a docstring", "g: a"]]
    assert len(called()) > 60 and ("reconstruction", "reconstruct") in called()
