"""What holds the package together: imports point one way, everything imports in a bare environment, versions match."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

import dfs_ros

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dfs_ros"
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(PACKAGE.rglob("*.py"))
}
MAX_LINES = 400

LAYERS = (
    ("paths", "memory", "cores", "cuda_graphs"),
    ("types", "config", "light", "runner", "worker"),
    ("optics", "network", "sweeps", "registration", "regularization"),
    ("geometry", "stack", "exposure", "matching", "cost_volume", "simulation", "working"),
    ("alignment", "aperture", "io", "transport", "on_device"),
    (
        "pipeline",
        "node_alignment",
        "node_capture",
        "node_focus",
        "node_health",
        "node_images",
        "node_lens",
        "node_outputs",
    ),
    ("node", "bag_output", "camera", "calibration", "evaluation", "viewer"),
    ("training", "doctor", "replay"),
    ("experiments",),
    ("cli",),
)
"""Each part of the package imports from layers below its own, and from itself.

`transport` lies below `node`, which is written against its interface; no transport knows the node."""

LAZY_CONVENIENCE = {("types", "io")}
"""`FocalStack.load` calls the reader of `io`, when called. The package itself offers the main classes that way."""

ROS_PACKAGES = {"rclpy", "cv_bridge", "ament_index_python", "launch", "launch_ros"}
ROS_ALLOWED = {"dfs_ros.transport.ros.transport", "dfs_ros.transport.ros.native", "dfs_ros.transport.ros.lifecycle"}

NOT_IN_A_BARE_ENVIRONMENT = (
    *("rclpy", "cv_bridge", "sensor_msgs", "std_msgs", "rosidl_runtime_py", "ament_index_python"),
    *("tensorrt", "tensorrt_rtx", "onnx", "onnxruntime", "cuda", "cupy", "pycuda", "tkinter", "linuxpy"),
)


def imports(file: Path, *, top_level: bool = False) -> Iterator[tuple[str, int]]:
    """(module, line) of every import in a file but those for type checking; `top_level`: only what runs at once."""
    todo: list[ast.AST] = [ast.parse(file.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
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


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_imports_point_one_way() -> None:
    layer = {part: i for i, parts in enumerate(LAYERS) for part in parts}
    new = {part_of(module) for module in MODULES} - set(layer) - {""}
    assert not new, f"new parts of the package, which need a place in LAYERS: {', '.join(sorted(new))}"
    wrong = []
    for module, file in MODULES.items():
        importer = part_of(module)
        if not importer:
            continue
        for imported, line in imports(file):
            part = part_of(imported)
            if imported.split(".")[0] != "dfs_ros" or part in ("", importer):
                continue
            if (importer, part) not in LAZY_CONVENIENCE and layer[part] >= layer[importer]:
                wrong.append(f"{file.relative_to(ROOT)}:{line}: {importer} may not import {part}")
    assert not wrong, "\n".join(wrong)


def test_lazy_conveniences_are_lazy() -> None:
    for importer, imported in LAZY_CONVENIENCE:
        at_once = {part_of(name) for name, _ in imports(MODULES[f"dfs_ros.{importer}"], top_level=True)}
        assert imported not in at_once
    assert not {part_of(name) for name, _ in imports(MODULES["dfs_ros"], top_level=True)} - {""}


def test_no_import_cycles_between_modules() -> None:
    graph = {
        module: {name for name, _ in imports(file, top_level=True) if name in MODULES and name != module}
        for module, file in MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for imported in sorted(graph[module]):
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())
    assert done == set(MODULES)


def reached_from(start: str) -> set[str]:
    """All modules that a module can come to import, lazily or not."""
    reached: set[str] = set()
    todo = [start]
    while todo:
        module = todo.pop()
        if module not in reached:
            reached.add(module)
            todo.extend(name for name, _ in imports(MODULES[module]) if name in MODULES and part_of(name))
            todo.extend(parent for parent in (module.rpartition(".")[0],) if part_of(parent))
    return reached


def test_the_core_knows_neither_training_nor_ros() -> None:
    parts = {part_of(module) for module in reached_from("dfs_ros.pipeline")}
    assert {"alignment", "cost_volume", "network"} <= parts
    assert not parts & {"training", "evaluation", "simulation", "transport", "node", "camera", "viewer", "cli"}


def test_ros_is_imported_by_its_transport_alone() -> None:
    for module, file in MODULES.items():
        if module not in ROS_ALLOWED:
            used = {name.split(".")[0] for name, _ in imports(file)} & ROS_PACKAGES
            assert not used, f"{module} imports {', '.join(used)}; that belongs into {', '.join(ROS_ALLOWED)}"
            assert not ROS_ALLOWED & {name for name, _ in imports(file)}, f"{module}: ask open_transport"


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "PYTHONPATH", "ROS_DISTRO")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        env={**kept, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **environment},
    )


BLOCK = """
import importlib, json, sys
blocked = set(json.loads({blocked!r}))

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def test_every_module_imports_in_a_bare_environment() -> None:
    code = (
        BLOCK.format(blocked=json.dumps(NOT_IN_A_BARE_ENVIRONMENT))
        + f"""
failed = []
for name in {sorted(MODULES)!r}:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed.append(f"{{name}}: {{type(error).__name__}}: {{error}}")
print("\\n".join(failed), end="")
"""
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


def test_blocking_blocks() -> None:
    result = run_python(
        BLOCK.format(blocked=json.dumps(["scipy"])) + "importlib.import_module('dfs_ros.optics.thin_lens')"
    )
    assert result.returncode == 1 and "No module named 'scipy'" in result.stderr


def test_the_core_runs_without_torch_and_without_dds() -> None:
    """On a robot with ROS 2 from packages there may be no more than numpy, scipy, OpenCV, Pillow, YAML and tqdm."""
    absent = ("torch", "safetensors", "viser", "cyclonedds", "matplotlib", "hypothesis", "skimage", *ROS_PACKAGES)
    code = (
        BLOCK.format(blocked=json.dumps(absent))
        + """
import numpy as np
from dfs_ros import Camera, Config, DepthEstimator
from dfs_ros.cli import estimate, main
from dfs_ros.io.results import write_result
from dfs_ros.simulation.render import render_stack
rgb = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
stack = render_stack(rgb, np.full((40, 48), 1.0), Camera(0.008, 1.4, 6e-6), [1.6, 1.0, 0.5])
config = Config.from_dict({"network": {"name": "none"}, "hypotheses": {"count": 8}})
print(DepthEstimator(config).estimate(stack).depth_m.shape)
"""
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "(40, 48)\n"


def test_heavy_libraries_are_imported_when_needed() -> None:
    code = """
import sys
import dfs_ros.pipeline, dfs_ros.io.results, dfs_ros.io.stack_folder, dfs_ros.cli.main, dfs_ros.cli.estimate
import dfs_ros.node.depth_node, dfs_ros.transport, dfs_ros.camera.simulator, dfs_ros.network
print(sorted({"torch", "viser", "cyclonedds", "matplotlib", "skimage"} & set(sys.modules)))
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[]\n"


def test_nothing_is_loaded_that_can_carry_code() -> None:
    for module, file in MODULES.items():
        names = {name.split(".")[0] for name, _ in imports(file)}
        assert not names & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}, module
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert called not in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "os.system"), f"{file}:{node.lineno}"
            assert called != "torch.load" or given.get("weights_only") == "True", f"{file}:{node.lineno}"
            assert called != "np.load" or given.get("allow_pickle") == "False", f"{file}:{node.lineno}"
            assert given.get("shell") != "True", f"{file}:{node.lineno}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_modules_say_what_they_are_and_never_assert(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    assert not tree.body or ast.get_docstring(tree), f"{module} has no docstring"
    asserts = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert not asserts, f"{module}, lines {asserts}: python -O drops assert; raise an error that says what was expected"


@pytest.mark.parametrize(
    "module", [m for m, file in MODULES.items() if re.search(r"^\s*>>> ", file.read_text(), re.MULTILINE)]
)
def test_examples_in_docstrings(module: str) -> None:
    flags = doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    result = doctest.testmod(importlib.import_module(module), optionflags=flags)
    assert result.failed == 0


def test_versions_match() -> None:
    setup = re.search(r'^\s*version="([^"]+)"', (ROOT / "setup.py").read_text(), re.MULTILINE)
    changelog = re.search(
        r"^(\d+\.\d+\.\d+) \(\d{4}-\d{2}-\d{2}\)\n-+$", (ROOT / "CHANGELOG.rst").read_text(), re.MULTILINE
    )
    assert setup and changelog
    assert setup[1] == dfs_ros.__version__
    assert changelog[1] == dfs_ros.__version__
    assert ElementTree.parse(ROOT / "package.xml").findtext("version") == dfs_ros.__version__


def test_files_are_short_enough_to_be_read() -> None:
    files = [file for file in sorted((ROOT / "dfs_ros").rglob("*")) if file.suffix in (".py", ".cu", ".cuh")]
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files}
    too_long = {file: lines for file, lines in lengths.items() if lines > MAX_LINES}
    assert not too_long, f"files near {MAX_LINES} lines want to be two: {too_long}"
