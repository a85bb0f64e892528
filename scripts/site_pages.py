"""Pages of the documentation site that are made from the package: a hook of mkdocs, see mkdocs.yml.

commands.md from Click, api.md from docstrings, priors.md from the model cards, changelog.md from CHANGELOG.md.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

HERE = Path(__file__).resolve().parents[1]


def slug(text: str, separator: str) -> str:
    """The anchor of a heading as forges make it, so that links work on the site and in the repository."""
    text = re.sub(r"<[^>]+>", "", text)
    return re.sub(r"[^\w -]", "", text.lower()).replace(" ", separator)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = {"commands.md": commands(), "api.md": api(), "priors.md": priors(), "changelog.md": changelog()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def commands() -> str:
    """Every command with its help, arguments and options."""
    from mri_score.cli import COMMANDS, main

    context = click.Context(main, info_name="mri-score")
    parts = [
        "# Commands",
        "As `mri-score COMMAND --help` prints them. Every command takes the options at the end, too.",
    ]
    common: dict[str, str] = {}
    for name in COMMANDS:
        command = main.get_command(context, name)
        assert command is not None
        parts += _command(command, click.Context(command, info_name=name, parent=context), 2, common)
    parts += ["## Options of every command", _options(list(common.items()))]
    return "\n\n".join(parts) + "\n"


def on_post_template(output_content: str, **rest: Any) -> str:
    """The same as `on_post_page` for the page of addresses that are not found."""
    return on_post_page(output_content)


def on_page_markdown(markdown: str, **rest: Any) -> str:
    """Links to files of the repository that are pages of the site lead to these pages."""
    markdown = markdown.replace("](../CHANGELOG.md)", "](changelog.md)")
    return re.sub(r"\]\(\.\./mri_score/priors/weights/[^)]*\.md\)", "](priors.md)", markdown)


def on_post_page(output: str, **rest: Any) -> str:
    """Put our script for search without a server in the place of the theme's, which would be fetched; mend labels."""
    ours = (HERE / "scripts" / "offline_search.js").read_text(encoding="utf-8")
    theirs = '<script src="https://unpkg.com/iframe-worker/shim"></script>'
    output = output.replace(theirs, f"<script>{ours}</script>").replace("<th></th>", "<td></td>")
    dialog = 'data-md-component="search" role="dialog"'
    return output.replace(dialog, f'{dialog} aria-label="Search"')


COMMON = ("--verbose", "--quiet", "--log", "--trust")


def _command(command: click.Command, context: click.Context, depth: int, common: dict[str, str]) -> list[str]:
    usage = " ".join(context.command_path.split() + command.collect_usage_pieces(context))
    parts = [f"{'#' * depth} {context.command_path.removeprefix('mri-score ')}", f"```text\n{usage}\n```"]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        block = paragraph.removeprefix("\b\n")
        parts.append(f"```text\n{block}\n```" if paragraph.startswith("\b") else " ".join(block.split()))
    rows = []
    for one in command.params:
        record = one.get_help_record(context) if isinstance(one, click.Option) else None
        if record is not None and set(one.opts) & set(COMMON):
            common[record[0]] = record[1]
        elif record is not None:
            rows.append(record)
    if rows:
        parts.append(_options(rows))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            parts += _command(below, click.Context(below, info_name=name, parent=context), depth + 1, common)
    return parts


def _options(rows: list[tuple[str, str]]) -> str:
    lines = ["| Option | Meaning |", "|---|---|"]
    for names, text in rows:
        lines.append(f"| `{names.replace('|', chr(92) + '|')}` | {_plain(text).replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text without what Markdown would read as marks."""
    return re.sub(r"([*_<>\[\]])", r"\\\1", " ".join(text.split()))


def api() -> str:
    """The names that `import mri_score` offers, with signature and docstring, by module."""
    import mri_score

    rooms: dict[str, list[str]] = {}
    for name in mri_score.__all__:
        if not name.startswith("_"):
            rooms.setdefault(getattr(mri_score, name).__module__, []).append(name)
    promise = "Everything else may change without notice ([versions](versions.md))."
    parts = ["# Python interface", f"What `import mri_score` offers. {promise}"]
    for room, names in sorted(rooms.items()):
        parts.append(f"## {room}")
        for name in names:
            found = getattr(mri_score, name)
            parts += [f"### {name}", f"```python\n{name}{_signature(found)}\n```", _docstring(found)]
            if inspect.isclass(found):
                parts += _members(name, found)
    return "\n\n".join(part for part in parts if part) + "\n"


def _members(owner: str, found: type) -> list[str]:
    parts = []
    for name, member in vars(found).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        shown = name if isinstance(member, property) else f"{name}{_signature(function)}"
        parts += [f"#### {owner}.{name}", f"```python\n{shown}\n```", _docstring(function)]
    return parts


def _signature(found: Any) -> str:
    try:
        text = str(inspect.signature(found))
    except (TypeError, ValueError):
        return "(...)"
    return re.sub(r"<(?:function|class|object)[^>]*>", "...", text.replace("'", ""))


def _docstring(found: Any) -> str:
    """A docstring as Markdown: paragraphs, lists, and each described parameter in a line of its own."""
    paragraphs = []
    for paragraph in inspect.cleandoc(found.__doc__ or "").split("\n\n"):
        if paragraph.lstrip().startswith("- "):
            paragraphs.append(_escape(paragraph))
        else:
            paragraphs.append(_escape(" ".join(paragraph.split())))
    return "\n\n".join(paragraphs)


def _escape(text: str) -> str:
    """Keep code between backticks; elsewhere stars, underscores and brackets stand for themselves."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(one if at % 2 else re.sub(r"([*_<>\[\]|])", r"\\\1", one) for at, one in enumerate(parts))


def priors() -> str:
    """The model cards of the bundled priors, their headings one level lower."""
    from mri_score.priors.record import bundled_priors

    parts = ["# Priors", "Model cards of the bundled priors, as `mri-score priors NAME` prints them."]
    for path in bundled_priors().values():
        card = path.with_suffix(".md").read_text(encoding="utf-8").strip()
        parts.append(re.sub(r"^#", "##", card, flags=re.MULTILINE))
    return "\n\n".join(parts) + "\n"


def changelog() -> str:
    """CHANGELOG.md with links as seen from docs/."""
    text = (HERE / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")
    return re.sub(r"\]\((?!https?:)(?:README|CONTRIBUTING|SECURITY)\.md[^)]*\)", "]", text)
