"""Modules of the repository, their syntax trees and their imports."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("dfs_ros", "dfs_research", "benchmarks", "tools")
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for package in PACKAGES
    for file in sorted((ROOT / package).rglob("*.py"))
}
RUNTIME = {module: file for module, file in MODULES.items() if module.split(".")[0] == "dfs_ros"}


@functools.cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def imports(file: Path, *, top_level: bool = False, type_checking: bool = False) -> Iterator[tuple[str, int]]:
    """(module, line) of every import in a file; `top_level`: only those that run at once."""
    todo: list[ast.AST] = [tree_of(file)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not type_checking:
            todo.extend(node.orelse)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # "from dfs_ros import optics" imports a module, "from dfs_ros.types import Camera" a name of one.
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield (submodule if submodule in MODULES else node.module or "."), node.lineno
        elif not (top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            todo.extend(ast.iter_child_nodes(node))
