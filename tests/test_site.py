"""The documentation site builds without a warning and needs no network; its guides name commands that exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from mri_score.cli import COMMANDS, main
from mri_score.config_file import find_config

CHECKOUT = Path(__file__).resolve().parents[1]
if not (CHECKOUT / "mkdocs.yml").exists():
    pytest.skip("the site is built from a checkout", allow_module_level=True)
GUIDES = ["start.md", "install.md", "faq.md", "migration.md", *sorted(
    path.relative_to(CHECKOUT / "docs").as_posix() for path in (CHECKOUT / "docs" / "howto").glob("*.md")
)]  # fmt: skip


def options(command):
    return {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("guide", GUIDES)
def test_guides_name_commands_options_and_configs_that_exist(guide):
    text = (CHECKOUT / "docs" / guide).read_text(encoding="utf-8")
    context = click.Context(main)
    lines = re.findall(r"mri-score ([a-z][^\n`#]*)", text)
    assert lines or guide == "index.md"
    for line in lines:
        words = line.split()
        assert words[0] in COMMANDS, line
        command = main.get_command(context, words[0])
        if isinstance(command, click.Group):
            command = command.commands[words[1]]
        unknown = {word for word in words if word.startswith("-") and word.strip("),.") not in options(command)}
        assert not unknown, line
    for config in re.findall(r"`?([a-z_0-9]+\.yml)", text):
        assert find_config(config).exists()


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed: install the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=CHECKOUT, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_fetches_nothing_and_is_searched_without_a_server(site):
    pages = {path: Tags(path.read_text(encoding="utf-8")).found for path in site.rglob("*.html")}
    assert len(pages) > 40 and (site / "search" / "search_index.js").exists()
    for path, tags in pages.items():
        for tag, attributes in tags:
            source = attributes.get("src") or (attributes.get("href") if tag == "link" else None)
            outside = source is not None and re.match(r"(https?:)?//", source)
            assert not outside or attributes.get("rel") == "canonical", f"{path}: {source}"


@pytest.mark.slow
def test_commands_names_and_priors_are_on_their_pages(site):
    import mri_score
    from mri_score.priors.record import bundled_priors

    def headings(page):
        return {one.strip() for one in re.findall(r'id="([^"]+)"', (site / page).read_text(encoding="utf-8"))}

    assert set(COMMANDS) <= headings("commands.html")
    assert {name.lower() for name in mri_score.__all__ if not name.startswith("_")} <= headings("api.html")
    text = (site / "priors.html").read_text(encoding="utf-8")
    assert all(f"Prior <code>{name}</code>" in text for name in bundled_priors())
