"""Shell completion of the command `dfs` by argcomplete, an optional package.

    eval "$(register-python-argcomplete dfs)"     # in ~/.bashrc or ~/.zshrc

Only the module of the command that stands on the line is imported.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

REQUESTED = "_ARGCOMPLETE"
"""Variable of the environment in which the shell asks for completions."""


def complete(commands: Mapping[str, tuple[str, str]]) -> None:
    """Answer the shell's request in the environment, and exit; without argcomplete there is no completion.

    `commands`: module and summary of each command, of one word or two.
    """
    try:
        import argcomplete
    except ImportError:
        sys.exit(1)
    argcomplete.autocomplete(parser_of(commands, os.environ.get("COMP_LINE", "").split()))


def parser_of(commands: Mapping[str, tuple[str, str]], line: list[str]) -> argparse.ArgumentParser:
    """Parser of all `commands`, with the options of that in the `line`."""
    parser = argparse.ArgumentParser(prog="dfs")
    parser.add_argument("--version", action="store_true")
    first_words = parser.add_subparsers()
    names = {name: name.split() for name in commands if "--" not in name}
    for name, (first, *rest) in names.items():
        if rest:
            continue
        each = first_words.add_parser(name, help=commands[name][1])
        second_words = {words[1]: longer for longer, words in names.items() if words[0] == first and len(words) == 2}
        if second_words:
            seconds = each.add_subparsers()
            for word, longer in second_words.items():
                second = seconds.add_parser(word, help=commands[longer][1])
                if line[1:3] == [first, word]:
                    _add_options(second, commands[longer][0])
        elif line[1:2] == [first]:
            _add_options(each, commands[name][0])
    return parser


def _add_options(parser: argparse.ArgumentParser, module: str) -> None:
    try:
        importlib.import_module(module).add_arguments(parser)
    except ModuleNotFoundError:  # a command of a clone, or one that lacks a package
        return
    for action in parser._actions:
        metavar = action.metavar[0] if isinstance(action.metavar, tuple) else action.metavar or ""
        if "--set" in action.option_strings:
            action.completer = _settings  # type: ignore[attr-defined]
        elif "|" in metavar:
            words = [word for word in metavar.split("|") if word.islower()]
            action.completer = partial(_words_and_files, words)  # type: ignore[attr-defined]


def _settings(prefix: str, **unused: Any) -> list[str]:
    """`SECTION.SETTING=`, and the value where there is a choice."""
    from dfs_ros.config import Config, sections

    found = []
    for name, section in sections(Config()):
        for field in dataclasses.fields(section):
            values = field.metadata["choices"] or (("true", "false") if isinstance(field.default, bool) else ("",))
            found += [f"{name}.{field.name}={value}" for value in (values if "=" in prefix else ("",))]
    return found


def _words_and_files(words: list[str], prefix: str, **unused: Any) -> list[str]:
    from argcomplete.completers import FilesCompleter

    return [*words, *FilesCompleter()(prefix)]
