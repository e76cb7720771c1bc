"""The documentation builds as a site without a warning, has a page for every folder, and names only what there is."""

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launch import import_tfio
from launch.cli import settings as cli_settings
from launch.cli.command import CommandParser
from ove.errors import OveError

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.name for page in PAGES]
PLACEHOLDER = re.compile(r"[A-Z_]+|…")
NUMBER = re.compile(r"(^|=)([NI]|\$\w+)$")
"""Of processes, steps: numbers that the reader, or the shell, is to fill in."""


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800)
    assert built.returncode == 0, built.stderr
    assert {p.name for p in tmp_path.glob("*.html")} == {p.with_suffix(".html").name for p in (ROOT / "docs").glob("*.md")} | {
        "404.html"
    }
    folders = {p.parent.name for p in (ROOT / "ove").glob("*/__init__.py")} - {"config"}
    for folder in folders:
        page = (tmp_path / "api" / f"{folder}.html").read_text()
        for module in (ROOT / "ove" / folder).glob("[a-z]*.py"):
            assert f'id="ove.{folder}.{module.stem}' in page, f"{module} is not on the page of ove.{folder}"
    assert 'id="ove.config.VideoConfig.n_frames"' in (tmp_path / "api" / "records.html").read_text()


class Parsed(Exception):
    """A command was understood; it goes no further."""


def commands(text: str) -> Iterator[tuple[str, list[str], bool]]:
    """Module, arguments and whether they are all there, of each `ove …` and of the quickstart on a page."""
    text = re.sub(r"\\\n\s*", "", text)
    blocks = "\n".join(re.findall(r"```(?:bash|\w*)\n(.*?)```", text, re.DOTALL))
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    whole = [*blocks.splitlines(), *(line for line in prose.splitlines() if line.startswith("    "))]
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    for line, is_whole in [*((line, True) for line in whole), *((span, False) for span in spans)]:
        found = re.fullmatch(r"\s*(?:(?:\.venv/bin/)?ove ([a-z_]+)|bash launch/(quickstart)\.sh)( .+)", line)
        if found:
            words = shlex.split(re.sub(r"[\[\]](?!['\"])", " ", found[3]), comments=True)
            words = [NUMBER.sub(r"\g<1>1", word) for word in words if word not in ("…", "&")]
            yield found[1] or found[2], words, is_whole


@pytest.fixture
def understand(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, list[str], bool], None]:
    """Calls a command's `main` up to where its arguments and configuration are known to be right; AssertionError if not."""
    parse, load, check = argparse.ArgumentParser.parse_args, cli_settings.load_config, cli_settings.from_mapping
    wholly = True

    def parse_and_stop(*arguments: Any) -> None:
        parse(*arguments)
        raise Parsed

    def check_and_stop(*arguments: Any) -> None:
        check(*arguments)
        raise Parsed

    def refuse(parser: argparse.ArgumentParser, message: str) -> None:
        assert not wholly and message.startswith("the following arguments are required"), message
        raise Parsed

    def run(name: str, words: list[str], is_whole: bool) -> None:
        nonlocal wholly
        wholly = is_whole
        if name == "import_tfio":  # hands what it does not know on to launch.shards
            words = ["--images", "FILE", *import_tfio._parser().parse_known_args([*words, "--out", "DIR"])[1], "--out", "DIR"]
            name = "shards"
        monkeypatch.setattr(sys, "argv", [name, *words])
        with pytest.raises(Parsed):
            importlib.import_module(f"launch.{name}").main()

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(CommandParser, "error", refuse)
    monkeypatch.setattr(cli_settings, "load_config", lambda name: {} if PLACEHOLDER.fullmatch(name) else load(name))
    monkeypatch.setattr(cli_settings, "from_mapping", check_and_stop)
    monkeypatch.chdir(ROOT)
    return run


@pytest.mark.parametrize("name", NAMES)
def test_commands_have_the_options_that_are_shown(name: str, understand: Callable[[str, list[str], bool], None]) -> None:
    page = PAGES[NAMES.index(name)]
    for module, words, is_whole in commands(page.read_text(encoding="utf-8")):
        try:
            understand(module, words, is_whole)
        except (AssertionError, OveError) as error:
            raise AssertionError(f"{name}: launch.{module} {shlex.join(words)}: {error}") from error


def test_every_command_is_told_of() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    heads = (re.match(r'"""`?ove ([a-z_]+)', path.read_text()) for path in (ROOT / "launch").glob("*.py"))
    modules = {head[1] for head in heads if head}
    assert len(modules) > 10
    assert not [name for name in modules if f"ove {name}" not in text]
    assert len(list(commands((ROOT / "docs" / "walkthrough.md").read_text()))) > 15


@pytest.mark.parametrize("name", NAMES)
def test_files_and_links_lead_somewhere(name: str) -> None:
    page = PAGES[NAMES.index(name)]
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"\b(?:launch|configs|tests|bench|docs|ove|notebooks)/[\w/.-]+\.(?:py|sh|md|yaml|ipynb)\b", text):
        assert (ROOT / path).is_file(), f"{name} names {path}"
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            aim = (page.parent / path) if path else page
            assert aim.exists(), f"{name} links to {target}"
            heads = re.findall(r"^#+ (.*)$", aim.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
            assert not anchor or anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, target
