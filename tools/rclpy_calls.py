"""Check the calls of the native transport against the sources of a release of rclpy.

    git clone --branch humble https://github.com/ros2/rclpy && python -m tools.rclpy_calls rclpy

Reads both as syntax trees: a machine without ROS 2 suffices. Every name that is imported from rclpy and every attribute
of its objects must be defined there, and every call must fit a definition of that name: number of positional arguments,
and keywords. Of two imports in `try` and `except ImportError`, one suffices; an attribute that the file asks for by
`hasattr` may be missing. Attributes that rclpy takes from its compiled part are not seen.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import dfs_ros

OURS = Path(dfs_ros.__file__).parent / "transport" / "ros"
_OF_RCLPY = re.compile(
    r"\b(?<!config\.)(native\w*|_?node|_?context|client|service|logger|_jumps|rclpy|get_clock\(\)|_native_executor)$"
)


class Signature(NamedTuple):
    """Parameters of a definition; `most` positional ones, None = any."""

    most: int | None
    keywords: frozenset[str]
    any_keyword: bool

    def takes(self, positional: int, keywords: set[str]) -> bool:
        fits = self.most is None or positional <= self.most
        return fits and (self.any_keyword or keywords <= self.keywords)


def signature_of(function: ast.FunctionDef | ast.AsyncFunctionDef, method: bool) -> Signature:
    """Signature of a function; of a method without `self`."""
    given = function.args
    positional = [*given.posonlyargs, *given.args][1 if method else 0 :]
    names = frozenset(arg.arg for arg in (*positional, *given.kwonlyargs))
    return Signature(None if given.vararg else len(positional), names, given.kwarg is not None)


def definitions(folder: Path) -> tuple[dict[str, list[Signature]], dict[str, set[str]]]:
    """Signatures by name (that of a class: of its `__init__`), and names that each module of rclpy has."""
    signatures: dict[str, list[Signature]] = {}
    names: dict[str, set[str]] = {}
    for file in sorted(folder.rglob("*.py")):
        module = ".".join(file.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names[module] = set().union(*map(_defined, ast.walk(tree)))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                for each in node.body:
                    if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)):
                        name = node.name if each.name == "__init__" else each.name
                        signatures.setdefault(name, []).append(signature_of(each, method=True))
        for each in tree.body:
            if isinstance(each, ast.FunctionDef):
                signatures.setdefault(each.name, []).append(signature_of(each, method=False))
    return signatures, names


def _defined(node: ast.AST) -> set[str]:
    """Names that a node of a syntax tree defines: of functions, classes, variables, attributes and imports."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.ImportFrom):
        return {each.asname or each.name for each in node.names}
    if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
        return {node.id if isinstance(node, ast.Name) else node.attr}
    return set()


def problems(ours: Path, rclpy: Path) -> Iterator[str]:
    """What of `ours` (a file) does not fit the package `rclpy` (a folder), a line each."""
    signatures, names = definitions(rclpy)
    tree = ast.parse(ours.read_text(encoding="utf-8"))
    imported: set[str] = set()
    alternatives = {
        id(part): [*node.body, *(line for handler in node.handlers for line in handler.body)]
        for node in ast.walk(tree)
        if isinstance(node, ast.Try)
        for part in (*node.body, *(line for handler in node.handlers for line in handler.body))
        if isinstance(part, ast.ImportFrom)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rclpy":
            imported |= {alias.name for alias in node.names}
            tried = [each for each in alternatives.get(id(node), [node]) if isinstance(each, ast.ImportFrom)]
            for alias in node.names:
                if not any(alias.name in names.get(each.module or "", ()) for each in tried):
                    yield f"{ours.name}:{node.lineno}: {node.module} has no {alias.name}"
    attributes = set().union(*names.values())
    asked = {ast.unparse(node.args[1]) for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_hasattr(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and _is_of_rclpy(node.value):
            if node.attr not in attributes and repr(node.attr) not in asked:
                yield f"{ours.name}:{node.lineno}: rclpy has no {node.attr}"
        elif isinstance(node, ast.Call) and not _fits(node, imported, signatures):
            yield f"{ours.name}:{node.lineno}: rclpy takes no call {ast.unparse(node)}"


def _is_hasattr(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "hasattr"


def _is_of_rclpy(value: ast.expr) -> bool:
    return _OF_RCLPY.search(ast.unparse(value)) is not None


def _fits(call: ast.Call, imported: set[str], signatures: dict[str, list[Signature]]) -> bool:
    """Whether a call fits a definition in rclpy; True for calls of anything else."""
    function = call.func
    if isinstance(function, ast.Name) and function.id in imported:
        known = signatures.get(function.id, [])
    elif isinstance(function, ast.Attribute) and _is_of_rclpy(function.value):
        known = signatures.get(function.attr, [])
    else:
        return True
    positional = len([arg for arg in call.args if not isinstance(arg, ast.Starred)])
    keywords = {each.arg for each in call.keywords if each.arg is not None}
    return not known or any(each.takes(positional, keywords) for each in known)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check the native transport against the sources of rclpy.")
    parser.add_argument("sources", help="clone of rclpy, or its Python package")
    args = parser.parse_args(arguments)
    found = [
        folder
        for folder in (Path(args.sources) / "rclpy" / "rclpy", Path(args.sources))
        if (folder / "node.py").is_file()
    ]
    if not found:
        parser.error(f"{args.sources}: expected a clone of rclpy, with rclpy/rclpy/node.py")
    wrong = [line for file in sorted(OURS.glob("*.py")) for line in problems(file, found[0])]
    print("\n".join(wrong) or f"every call of {len(list(OURS.glob('*.py')))} files fits {found[0]}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
