"""README and docs/: links lead somewhere; commands, settings, topics, arguments and counters are those of the code."""

from __future__ import annotations

import argparse
import dataclasses
import doctest
import importlib
import re
from pathlib import Path

import pytest
from source_tree import RUNTIME

from dfs_ros.cli.main import COMMANDS, VARIANTS
from dfs_ros.config import Config, sections
from dfs_ros.io.report import FIELDS
from dfs_ros.messages.node_status import FAULTS
from dfs_ros.node.outputs import TOPICS
from dfs_ros.stacks.assembler import EVENTS, OUTCOMES

ROOT = Path(__file__).resolve().parents[1]
PAGES = {str(page.relative_to(ROOT)): page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}
MOST_LINES = 90
REPORTED = {".".join(name.split(".")[:2]).removesuffix("[]") for name in FIELDS}
SETTINGS = {f"{name}.{field.name}" for name, section in sections(Config()) for field in dataclasses.fields(section)}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", PAGES[page].read_text())
    assert not [link for link in links if not leads_somewhere(PAGES[page], link)]


def leads_somewhere(page: Path, link: str) -> bool:
    if link.startswith(("http://", "https://")):
        return True
    path, _, heading = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not heading or heading in headings(target))


def headings(page: Path) -> set[str]:
    """Anchors of a page, as GitHub makes them of its headings."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in found}


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A heading/1\n")
    assert leads_somewhere(page, "page.md#a-heading1") and leads_somewhere(page, "#a-heading1")
    assert not leads_somewhere(page, "other.md") and not leads_somewhere(page, "page.md#none")


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page: str) -> None:
    wrong = []
    for line in code(PAGES[page]):
        for name, arguments in re.findall(r"\bdfs ([a-z][a-z-]*)([^|&#]*)", line):
            known = options(name) if name in COMMANDS else set()
            wrong += [f"{name} {each}" for each in re.findall(r"--[a-z][a-z-]*", arguments) if each not in known]
            wrong += [] if name in COMMANDS else [name]
    assert not wrong


def code(page: Path) -> list[str]:
    """Lines of code blocks, and what stands between single backticks."""
    text = page.read_text()
    blocks = re.findall(r"^```(?:bash)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    (.+)$", prose, re.MULTILINE)
    return [*"\n".join(blocks).splitlines(), *indented, *re.findall(r"`([^`]+)`", prose)]


def options(command: str) -> set[str]:
    modules = [COMMANDS[command][0], *(module for name, (module, _) in VARIANTS.items() if name.split()[0] == command)]
    found = {"--node"} if command == "bench" else set()
    for module in modules:
        parser = argparse.ArgumentParser()
        importlib.import_module(module).add_arguments(parser)
        found |= {option for action in parser._actions for option in action.option_strings}
    return found


@pytest.mark.parametrize("page", PAGES)
def test_settings_exist(page: str) -> None:
    names = "|".join(name for name, _ in sections(Config()))
    mentioned = set(re.findall(rf"(?<![\w/.])((?:{names})\.[a-z]\w*)", " ".join(code(PAGES[page]))))
    files = {name for name in mentioned if name.endswith((".yaml", ".py", ".md", ".png", ".json", ".launch"))}
    assert not mentioned - SETTINGS - REPORTED - files


def test_the_pages_of_the_node_name_its_topics_arguments_and_counters() -> None:
    launch = (ROOT / "launch" / "depth.launch.py").read_text()
    arguments = re.findall(r'^    argument\(\s*"(\w+)"', launch, re.MULTILINE)
    assert len(arguments) > 15
    assert not [name for name in arguments if f"`{name}`" not in PAGES["docs/node.md"].read_text()]
    interface = PAGES["docs/nodes/depth_node.md"].read_text()
    assert not [name for name in (*TOPICS, *OUTCOMES, *EVENTS, *FAULTS) if f"`{name}`" not in interface]


def test_examples_of_the_api_page() -> None:
    blocks = re.findall(r"^```pycon\n(.*?)^```", PAGES["docs/api.md"].read_text(), re.MULTILINE | re.DOTALL)
    examples = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "docs/api.md", "docs/api.md", 0)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    result = doctest.DocTestRunner(optionflags=flags).run(examples)
    assert result.failed == 0 and result.attempted > 30


def test_messages_of_the_troubleshooting_page_are_in_the_code() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", PAGES["docs/trouble.md"].read_text(), re.MULTILINE)
    parts = {part.strip() for row in rows for part in row.split("...") if len(part.strip()) > 3}
    said = messages_of_the_code()
    assert len(rows) > 30
    assert not {part for part in parts if part not in said}
    assert "no such message is logged" not in said


def messages_of_the_code() -> str:
    """Source of the runtime, with literals over several lines made one."""
    return "\n".join(re.sub(r'"\s*\n\s*f?"', "", file.read_text()) for file in RUNTIME.values())
