"""Check that wheels of all dependencies exist for the machines of robots: x86-64 and aarch64, Python 3.10 and 3.12.

    pip install uv && python -m tools.wheels

uv resolves the requirements of setup.py for each machine, from wheels alone, and downloads none. Prints the versions
that differ between the machines; status 1 where a requirement has no wheel.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import subprocess
import sys

from dfs_ros.system.folders import share_folder

PYTHONS = ("3.10", "3.12")
MACHINES = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")
"""Of glibc 2.28 and later: JetPack 6 has 2.35."""
EXTRAS = ("onnx", "v4l2", "datasets", "completion")


def requirements() -> str:
    """Requirements of setup.py with those of EXTRAS, a line each."""
    tree = ast.parse((share_folder("config").parent / "setup.py").read_text(encoding="utf-8"))
    (call,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "setup"]
    given = {str(each.arg): each.value for each in call.keywords}
    extras = ast.literal_eval(given["extras_require"])
    return "\n".join(
        [*ast.literal_eval(given["install_requires"]), *(line for name in EXTRAS for line in extras[name])]
    )


def resolve(python: str, machine: str) -> tuple[dict[str, str], str]:
    """Versions by package of what would be installed, and the error where that is impossible."""
    command = ["uv", "pip", "compile", "-", "--python-version", python, "--python-platform", machine]
    command += ["--only-binary", ":all:", "--no-header", "--no-annotate", "--quiet"]
    done = subprocess.run(command, input=requirements(), capture_output=True, text=True, check=False)
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", done.stdout, re.MULTILINE)), done.stderr.strip()


def main(arguments: list[str] | None = None) -> int:
    argparse.ArgumentParser(description="Check that wheels of all dependencies exist.").parse_args(arguments)
    if shutil.which("uv") is None:
        print("wheels: error: needs uv: `pip install uv`", file=sys.stderr)
        return 2
    found = {(python, machine): resolve(python, machine) for python in PYTHONS for machine in MACHINES}
    for (python, machine), (versions, error) in found.items():
        print(f"Python {python} {machine}: {error or f'{len(versions)} packages, all as wheels'}")
    for name in sorted({name for versions, _ in found.values() for name in versions}):
        each = [versions.get(name, "-") for versions, _ in found.values()]
        if len(set(each)) > 1:
            print(f"  {name}: {', '.join(each)}")
    return 1 if any(error for _, error in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
