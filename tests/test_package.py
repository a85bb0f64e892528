"""The package: what a wheel holds, that it works far from its checkout, and that imports run one way."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
SOURCES = ["mri_score", "cli", "configs", "parameters", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"]

# Modules may import from the floors below their own, never from above; never from another room of their floor.
FLOORS = [
    ["__main__"],
    ["cli"],
    ["settings"],
    ["experiment", "benchmark", "sample_quality"],
    ["work", "doctor"],
    ["training", "pipeline", "generation", "memory", "streaming"],
    ["reconstruction"],
    ["losses", "samplers", "posteriors", "baselines", "likelihood", "priors", "sources", "simulation", "array_results"],
    ["models", "data", "writers"],
    ["noise", "operators", "readers"],
    ["networks", "evaluation"],
    ["numerics", "config_file", "migration"],
    ["files", "keys", "methods", "progress", "ranges", "untrusted"],
    ["errors"],
    ["__init__"],
    ["_moved"],
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def run(*command, cwd, **environment):
    """Run a command to its good end, away from the checkout; its output."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    result = subprocess.run(list(map(str, command)), cwd=cwd, env=variables, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def pip(*arguments, cwd):
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the checkout: what an older build left there cannot slip in."""
    if not (CHECKOUT / "setup.cfg").exists():
        pytest.skip("there is no setup.cfg beside the tests: a wheel is built from a checkout")
    missing = [name for name in ["pip", "setuptools", "wheel"] if find_spec(name) is None]
    if missing:
        pytest.skip(f"building a wheel without a network needs {', '.join(missing)}: install the test extra")
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, copy = CHECKOUT / name, folder / "source" / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", folder, "./source", cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """A folder with nothing but the installed wheel."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--no-index", "--target", folder, wheel, cwd=folder)
    return folder


def files_below(folder, inside="mri_score"):
    """The files of a folder of the checkout as the wheel should name them."""
    paths = [path for path in (CHECKOUT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {f"{inside}/{path.relative_to(CHECKOUT / folder).as_posix()}" for path in paths}


def test_a_wheel_owns_one_name(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mri_score"}
    assert len(tops) == 2


def test_a_wheel_holds_every_file_of_the_package(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("mri_score/")}
    beside = [files_below(folder, f"mri_score/{folder}") for folder in ["cli", "configs", "parameters"]]
    assert inside == files_below("mri_score").union(*beside)
    for name in ["configs/tiny.yml", "parameters/brain_images.txt", "evaluation/report.html.j2", "py.typed"]:
        assert f"mri_score/{name}" in inside
    for ending in ["safetensors", "json", "md"]:
        assert f"mri_score/priors/weights/brain.{ending}" in inside


@pytest.mark.slow
def test_the_wheel_works_from_any_folder(site, tmp_path):
    def python(*arguments):
        return run(sys.executable, *arguments, cwd=tmp_path, PYTHONPATH=str(site))

    places = "import json, mri_score, mri_score.cli, mri_score.pipeline.volume as volumes;"
    places += "print(json.dumps([mri_score.__file__, mri_score.cli.__file__, volumes.__file__]))"
    for place in json.loads(python("-c", places)):
        assert Path(place).resolve().is_relative_to(site.resolve())

    assert "brain" in python("-m", "mri_score", "priors")
    assert "Research use only" in python("-m", "mri_score", "priors", "brain")
    python("-m", "mri_score", "simulate", "--volumes", "1", "--slices", "1", "--size", "64", "--coils", "2")
    assert len(list((tmp_path / "data" / "simulated").glob("*.h5"))) == 1
    assert "NCSNv2" in python("-m", "mri_score", "train", "--config", "tiny.yml", "--dry-run")


def test_the_console_script_helps(tmp_path):
    script = shutil.which("mri-score", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("mri-score is not installed in this environment")
    text = run(script, "--help", cwd=tmp_path)
    assert "reconstruct" in text and "Usage: mri-score" in text


def modules():
    """(name within the package, path) of every module of the checkout."""
    for folder, prefix in [("mri_score", ""), ("cli", "cli.")]:
        for path in sorted((CHECKOUT / folder).rglob("*.py")):
            parts = path.relative_to(CHECKOUT / folder).with_suffix("").parts
            yield prefix + ".".join(parts), path


def imports(path, module):
    """The package's modules that a file imports anywhere, within functions too, as names within the package."""
    package = ["mri_score", *module.split(".")[:-1]]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if module == "__init__":  # what it exports is imported for type checkers alone
        tree.body = [node for node in tree.body if not isinstance(node, ast.If)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("mri_score.") for name in names if name.split(".")[0] == "mri_score")


def room(module):
    """The part of the package that a module or a name of it lives in: numerics for numerics.noise.key."""
    first = module.split(".")[0]
    return first if (CHECKOUT / "mri_score" / first).is_dir() or first in FLOOR else "__init__"


def crossings():
    """(importing module, its room, the imported room) wherever an import leaves its room."""
    return [
        (module, room(module), room(name))
        for module, path in modules()
        for name in imports(path, module)
        if room(module) != room(name)
    ]


def test_every_room_has_a_floor():
    assert {room(module) for module, _ in modules()} == set(FLOOR)


def test_imports_run_one_way():
    found = crossings()
    assert len(found) > 100, "the reader of imports found next to nothing"
    assert not [f"{module} imports {below}" for module, own, below in found if FLOOR[below] <= FLOOR[own]]


def file_of(name, known):
    """The module that an imported name is, or is defined in."""
    while name not in known and "." in name:
        name = name.rpartition(".")[0]
    return name


def test_no_files_import_each_other_in_a_circle():
    """Imports within functions count: they put a circle off and do not undo it."""
    known = {module.removesuffix(".__init__") for module, _ in modules()}
    below = {
        module.removesuffix(".__init__"): {file_of(name, known) for name in imports(path, module)}
        for module, path in modules()
    }
    while leaves := {module for module, names in below.items() if not (names - {module}) & set(below)}:
        below = {module: names for module, names in below.items() if module not in leaves}
    assert not below, f"these files import each other, or files that do: {sorted(below)}"


def test_nothing_but_main_imports_the_command_line():
    assert {module for module, _, below in crossings() if below == "cli"} == {"__main__"}


def test_functions_take_at_most_eight_parameters():
    """More belong into a class of typed options, whose constructor may have as many as there are."""
    found = {}
    for module, path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name != "__init__":
                names = [one.arg for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                if len(set(names) - {"self", "cls"}) > 8:
                    found[node.name] = f"{module}.{node.name} takes {len(names)}"
    assert not found


def test_scans_are_opened_through_one_door():
    """A new format is a file of `readers` and a row of its table: no other room names the class of a reader."""
    from mri_score.readers import READERS

    names = {f"{reader.__module__.removeprefix('mri_score.')}.{reader.__name__}" for reader in READERS.values()}
    found = [module for module, path in modules() if room(module) != "readers" and names & set(imports(path, module))]
    assert names and not found


def test_evaluation_needs_no_mri():
    below = {below for _, own, below in crossings() if own == "evaluation"}
    assert below <= {"numerics", "errors", "files", "untrusted", "__init__"}  # the last for the version alone


def test_completion_and_type_checkers_see_what_the_package_exports():
    import mri_score

    assert set(mri_score.__all__) <= set(dir(mri_score)) and 20 <= len(mri_score.__all__) <= 32
    tree = ast.parse((CHECKOUT / "mri_score" / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    typed = {one.names[0].asname: one.module for one in block.body if isinstance(one, ast.ImportFrom)}
    assert typed == mri_score._HOMES
    for name in mri_score.__all__:
        assert getattr(mri_score, name) is not None


def test_a_type_checker_says_what_reconstruct_takes_and_returns(tmp_path):
    """With the options of setup.cfg, whose cache `scripts/test` has just filled: else this takes half a minute."""
    if find_spec("mypy") is None:
        pytest.skip("mypy is not installed: install the test extra")
    script = tmp_path / "script.py"
    lines = ["reveal_type(mri_score.reconstruct)", "reveal_type(mri_score.as_prior)"]
    lines += ['mri_score.reconstruct(np.ones((1, 4, 4)), samples="four")']
    script.write_text("\n".join(["import numpy as np", "import mri_score", *lines, ""]))
    command = [sys.executable, "-m", "mypy", "--config-file", CHECKOUT / "setup.cfg", script]
    text = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True).stdout
    shown = [line for line in text.splitlines() if "Revealed type" in line]
    assert "-> mri_score.reconstruction.Reconstruction" in shown[0]
    assert "-> mri_score.models.base.ScoreModel" in shown[1]
    (refused,) = [line for line in text.splitlines() if "error:" in line]
    assert 'Argument "samples" to "reconstruct" has incompatible type "str"; expected "int"' in refused
