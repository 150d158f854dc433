"""What writes files publishes them whole: by one room, in the source of every module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from source_tree import MODULES, ROOT, RUNTIME, imports, tree_of


def renames(file: Path) -> Iterator[int]:
    """Lines of a file that rename or move a file, or lose an error of writing it.

    Path.replace takes one argument, str.replace two. np.save is silent where the last bytes did not fit on the disk.
    """
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called, given = node.func.attr, len(node.args)
            of_module = isinstance(node.func.value, ast.Name) and node.func.value.id in ("os", "shutil")
            if (
                called in ("rename", "renames", "hardlink_to", "renameat2")
                or (called in ("replace", "link", "move") and of_module)
                or (called == "replace" and given == 1 and not node.keywords)
                or ast.unparse(node.func) == "np.save"
                or called == "tofile"
            ):
                yield node.lineno


def test_files_are_published_by_one_room_alone(tmp_path: Path) -> None:
    """Whole or not at all, on the disk before they have their name: system/atomic.py."""
    wrong = [
        f"{file.relative_to(ROOT)}:{line}: publish by dfs_ros.system.atomic, write arrays by dfs_ros.system.cache"
        for module, file in MODULES.items()
        if not module.startswith("dfs_ros.system.")
        for line in renames(file)
    ]
    assert not wrong, "\n".join(wrong)
    sample = tmp_path / "sample.py"
    sample.write_text("os.replace(a, b)\npath.replace(b)\ntext.replace('a', 'b')\npath.rename(b)\nnp.save(a, b)\n")
    assert list(renames(sample)) == [1, 2, 4, 5]


WRITERS_INTO_STAGED_FOLDERS = {
    "dfs_ros.io.images",
    "dfs_ros.io.stack_description",
    "dfs_ros.transport.bag.writer",  # also of recordings, which lie under their own name while they are open
}
"""Modules that write the files of a folder which their caller publishes."""

TEMPORARY = {"dfs_ros.cli.parts", "dfs_ros.cost_volume.cuda.build", "dfs_ros.transport.bag.inflate"}
"""Modules that write into a folder of tempfile, which ends with them."""


def writes(file: Path) -> bool:
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            modes = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
            if called in ("write_bytes", "write_text", "imwrite", "copyfile", "copy2", "savez", "save_file"):
                return True
            if called == "open" and any(
                isinstance(m, str) and re.fullmatch(r"[wax]\+?b?|[wax]b?\+?", m) for m in modes
            ):
                return True
    return False


def test_what_writes_files_publishes_them() -> None:
    wrong = [
        f"{module} writes files, but publishes none by dfs_ros.system.atomic"
        for module, file in RUNTIME.items()
        if writes(file)
        and not module.startswith("dfs_ros.system.")
        and not {"dfs_ros.system.atomic"} & {name for name, _ in imports(file)}
        and module not in WRITERS_INTO_STAGED_FOLDERS | TEMPORARY
    ]
    assert not wrong, "\n".join(wrong)
