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

import pytest
from source_tree import MODULES, PACKAGES, ROOT, RUNTIME, imports, tree_of

import dfs_ros

MAX_LINES = 400

LAYERS = (
    ("pose", "image_size", "lens_field"),
    ("version", "types", "system", "config"),
    ("optics", "lens", "scoring", "transforms"),
    ("alignment", "simulation", "stacks"),
    ("cost_volume",),
    ("depth", "io", "messages"),
    ("network", "transport"),
    ("calibration", "camera"),
    ("consistency", "motion"),
    ("pipeline",),
    ("estimator",),
    ("node", "viewer", "doctor"),
    ("cli",),
)
"""Each room of the runtime imports from layers below its own, and from itself.

`transport` lies below `node`, which is written against its interface; no transport knows the node."""

ROOMS_ABOVE = {"benchmarks": (), "dfs_research": ("benchmarks",), "tools": ()}
"""What each package beside the runtime imports besides the runtime and itself."""

ROS_PACKAGES = {"rclpy", "cv_bridge", "ament_index_python", "launch", "launch_ros"}
ROS_ALLOWED = "dfs_ros.transport.ros"

NOT_IN_A_BARE_ENVIRONMENT = (
    *("rclpy", "cv_bridge", "sensor_msgs", "std_msgs", "rosidl_runtime_py", "ament_index_python"),
    *("tensorrt", "tensorrt_rtx", "onnx", "onnxruntime", "cuda", "cupy", "pycuda", "tkinter", "linuxpy"),
    *("depthai", "picamera2", "libcamera", "serial"),
)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def whole_room(module: str) -> str:
    """Package and first folder; a module beside the folders is a room of its own."""
    return ".".join(module.split(".")[:2])


def test_imports_point_one_way() -> None:
    layer = {room: i for i, rooms in enumerate(LAYERS) for room in rooms}
    new = {room_of(module) for module in RUNTIME} - set(layer) - {""}
    assert not new, f"new rooms of the runtime, which need a place in LAYERS: {', '.join(sorted(new))}"
    wrong = []
    for module, file in RUNTIME.items():
        for imported, line in imports(file):
            importer, room = room_of(module), room_of(imported)
            if imported in MODULES and imported not in RUNTIME:
                wrong.append(f"{file.relative_to(ROOT)}:{line}: the runtime may not import {imported}")
            elif importer and imported in RUNTIME and room not in ("", importer) and layer[room] >= layer[importer]:
                wrong.append(f"{file.relative_to(ROOT)}:{line}: {importer} may not import {room}")
            elif importer and imported == "dfs_ros":
                wrong.append(f"{file.relative_to(ROOT)}:{line}: import the module instead of the package")
    assert not wrong, "\n".join(wrong)


def test_packages_beside_the_runtime_point_one_way() -> None:
    wrong = []
    for module, file in MODULES.items():
        package = module.split(".")[0]
        if package != "dfs_ros":
            allowed = {"dfs_ros", package, *ROOMS_ABOVE[package]}
            for imported, line in imports(file):
                if imported in MODULES and imported.split(".")[0] not in allowed:
                    wrong.append(f"{file.relative_to(ROOT)}:{line}: {package} may not import {imported}")
    assert not wrong, "\n".join(wrong)


def test_the_package_itself_offers_its_main_classes_lazily() -> None:
    assert not {room_of(name) for name, _ in imports(MODULES["dfs_ros"], top_level=True)} - {"", "version"}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The nodes of one circle of a graph, the first again at the end; empty where there is none."""
    done: set[str] = set()

    def visit(node: str, path: tuple[str, ...]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node not in done:
            for reached in sorted(graph.get(node, ())):
                found = visit(reached, (*path, node))
                if found:
                    return found
            done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, ()))), [])


def test_no_circles_also_no_lazy_ones() -> None:
    """Neither between modules nor between rooms; imports within functions and for type checking count."""
    modules: dict[str, set[str]] = {}
    rooms: dict[str, set[str]] = {}
    for module, file in MODULES.items():
        found = {name for name, _ in imports(file, type_checking=True) if name in MODULES} - {module}
        modules[module] = found
        if module != "dfs_ros":  # offers what lies below it, and nothing imports it
            rooms.setdefault(whole_room(module), set()).update(map(whole_room, found))
    rooms = {room: others - {room} for room, others in rooms.items()}
    assert circle(modules) == []
    assert circle(rooms) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]


def reached_from(start: str) -> set[str]:
    """All modules that a module can come to import, lazily or not."""
    reached: set[str] = set()
    todo = [start]
    while todo:
        module = todo.pop()
        if module not in reached:
            reached.add(module)
            todo.extend(name for name, _ in imports(MODULES[module]) if name in MODULES and room_of(name))
            todo.extend(parent for parent in (module.rpartition(".")[0],) if room_of(parent))
    return reached


def test_the_algorithm_knows_no_plumbing() -> None:
    rooms = {room_of(module) for module in reached_from("dfs_ros.pipeline")}
    assert {"alignment", "cost_volume", "depth", "calibration"} <= rooms
    assert not rooms & {"simulation", "transport", "messages", "node", "camera", "viewer", "cli", "estimator"}


def test_ros_is_imported_by_its_transport_alone() -> None:
    for module, file in MODULES.items():
        if not module.startswith(ROS_ALLOWED):
            found = {name for name, _ in imports(file)}
            used = {name.split(".")[0] for name in found} & ROS_PACKAGES
            assert not used, f"{module} imports {', '.join(used)}; that belongs into {ROS_ALLOWED}"
            inner = {name for name in found if name.startswith(ROS_ALLOWED)}
            assert not inner or module == "dfs_ros.transport", f"{module}: ask open_transport"


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "PYTHONPATH", "ROS_DISTRO")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=240,
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
        BLOCK.format(blocked=json.dumps(["numpy"])) + "importlib.import_module('dfs_ros.optics.thin_lens')"
    )
    assert result.returncode == 1 and "No module named 'numpy'" in result.stderr


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


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        (
            "estimator.estimator io.results io.stack_folder cli.main cli.estimate node.depth_node transport "
            "camera.simulator network",
            "torch viser cyclonedds matplotlib skimage",
        ),
        ("cli.run cli.camera cli.record transport.dds.transport camera.recorded", "scipy torch viser matplotlib"),
    ],
)
def test_heavy_libraries_are_imported_when_needed(modules: str, heavy: str) -> None:
    imported = ", ".join(f"dfs_ros.{module}" for module in modules.split())
    result = run_python(f"import sys, {imported}\nprint(sorted({set(heavy.split())} & set(sys.modules)))")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[]\n"


def test_nothing_is_loaded_that_can_carry_code() -> None:
    for module, file in MODULES.items():
        names = {name.split(".")[0] for name, _ in imports(file)}
        assert not names & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}, module
        for node in ast.walk(tree_of(file)):
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
    tree = tree_of(MODULES[module])
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
    files = [
        file
        for package in PACKAGES
        for file in sorted((ROOT / package).rglob("*"))
        if file.suffix in (".py", ".cu", ".cuh")
    ]
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files}
    too_long = {file: lines for file, lines in lengths.items() if lines > MAX_LINES}
    assert not too_long, f"files near {MAX_LINES} lines want to be two: {too_long}"
