"""The calls that the TensorRT runner makes exist, with those parameters, in NVIDIA's own bindings of 10.3 to 11.

The wheels of the bindings (1 MB each) are on PyPI, the libraries are not: bindings are imported beside empty libraries
that have the symbols they ask for, which tells every signature and runs nothing. Fetching is asked for by
DFS_TENSORRT_BINDINGS=1; the wheels are then kept in the cache of pytest. Last run: all of VERSIONS, Python 3.11.
"""

import functools
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from places import ROOT

VERSIONS = ("10.3.0", "10.16.1.11", "11.4.0.106")

# Method -> parameters that must be in its signature; overloaded methods tell all of theirs.
CALLS = {
    "Builder.__init__": ("logger",),
    "Builder.create_network": ("flags",),
    "Builder.create_builder_config": (),
    "Builder.create_optimization_profile": (),
    "Builder.build_serialized_network": ("network", "config"),
    "OnnxParser.__init__": ("network", "logger"),
    "OnnxParser.parse": ("model",),
    "OnnxParser.get_error": ("index",),
    "ParserError.desc": (),
    "INetworkDefinition.get_input": ("index",),
    "IBuilderConfig.set_memory_pool_limit": ("pool", "pool_size"),
    "IBuilderConfig.clear_flag": ("flag",),
    "IBuilderConfig.add_optimization_profile": ("profile",),
    "IOptimizationProfile.set_shape": ("input", "min", "opt", "max"),
    "IProgressMonitor.phase_start": ("phase_name", "parent_phase", "num_steps"),
    "IProgressMonitor.step_complete": ("phase_name", "step"),
    "IProgressMonitor.phase_finish": ("phase_name",),
    "ILogger.log": ("severity", "msg"),
    "Runtime.__init__": ("logger",),
    "Runtime.deserialize_cuda_engine": ("serialized_engine",),
    "ICudaEngine.get_tensor_name": ("index",),
    "ICudaEngine.get_tensor_mode": ("name",),
    "ICudaEngine.create_execution_context": (),
    "IExecutionContext.set_input_shape": ("name", "shape"),
    "IExecutionContext.set_tensor_address": ("name", "memory"),
    "IExecutionContext.get_tensor_shape": ("name",),
    "IExecutionContext.execute_async_v3": ("stream_handle",),
}
ATTRIBUTES = (
    *("INetworkDefinition.num_inputs", "ITensor.name", "OnnxParser.num_errors", "ICudaEngine.num_io_tensors"),
    *("IBuilderConfig.progress_monitor", "NetworkDefinitionCreationFlag.STRONGLY_TYPED", "BuilderFlag.TF32"),
    *("MemoryPoolType.WORKSPACE", "TensorIOMode.OUTPUT", "ILogger.ERROR", "ILogger.WARNING", "__version__"),
)

ASK = """
import functools, json, sys
import tensorrt_bindings as trt
def find(name):
    return functools.reduce(lambda o, part: getattr(o, part, None), name.split("."), trt)
calls, attributes = json.loads(sys.argv[1])
print(json.dumps({
    "version": trt.__version__,
    "calls": {name: getattr(find(name), "__doc__", None) for name in calls},
    "absent": [name for name in attributes if find(name) is None],
}))
"""


def test_every_name_the_runner_uses_is_listed_here() -> None:
    """What follows `trt.` in the source, so that a new call cannot go unchecked."""
    import re

    source = (ROOT / "dfs_ros" / "network" / "runners" / "tensorrt.py").read_text()
    used = set(re.findall(r"\btrt\.(\w+(?:\.[A-Z]\w+)*)", source))
    listed = {*CALLS, *ATTRIBUTES}
    for name in used:
        assert any(known == name or known.startswith(f"{name}.") for known in listed), f"trt.{name}"


@pytest.mark.parametrize("version", VERSIONS)
def test_calls_exist_in_the_bindings(version, request, tmp_path) -> None:
    import json

    if not os.environ.get("DFS_TENSORRT_BINDINGS"):
        pytest.skip("set DFS_TENSORRT_BINDINGS=1 to fetch the bindings from PyPI (1 MB each)")
    compiler, symbols = shutil.which("cc"), shutil.which("nm")
    if compiler is None or symbols is None:
        pytest.skip("needs a C compiler and nm")
    folder = unpacked(version, request.config.cache.mkdir("tensorrt_bindings"), tmp_path)
    module = folder / "tensorrt_bindings" / "tensorrt.so"
    # Later bindings are for one Python each; 10.3's need no more than that either.
    wanted = subprocess.run(
        [symbols, "-D", "--undefined-only", str(module)], capture_output=True, text=True, check=True
    )
    names = [line.split()[-1] for line in wanted.stdout.splitlines()]
    mine = [n for n in names if n.startswith(("createInfer", "createNvOnnx", "getBuilderP", "getNvOnnx", "getPlugin"))]
    source = tmp_path / "empty.c"
    source.write_text("".join(f"void *{n}(void) {{ return 0; }}\n" for n in [*mine, "initLibNvInferPlugins"]))
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        file = f"lib{library}.so.{version.split('.')[0]}"
        command = [compiler, "-shared", "-fPIC", "-w", f"-Wl,-soname,{file}", "-o", str(tmp_path / file), str(source)]
        subprocess.run(command, check=True, timeout=240)
    paths = {"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(folder)}
    asked = json.dumps([list(CALLS), ATTRIBUTES])
    done = subprocess.run(
        [sys.executable, "-c", ASK, asked], capture_output=True, text=True, timeout=240, env={**os.environ, **paths}
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["version"] == version and told["absent"] == []
    for name, parameters in CALLS.items():
        text = told["calls"][name]
        assert text is not None, name
        if name.startswith(("IProgressMonitor.", "ILogger.")):  # called by the library, by position
            assert text.count(":") > len(parameters), text
            continue
        for parameter in parameters:
            assert f"{parameter}: " in text, f"{name}: {parameter} is not in {text}"


def unpacked(version, folder, tmp_path):
    """The wheel of that version, fetched once."""
    target = folder / f"{version}-{sys.version_info[0]}{sys.version_info[1]}"
    if not target.is_dir():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            str(tmp_path),
        ]
        done = subprocess.run(
            [*command, f"tensorrt-cu12-bindings=={version}"], capture_output=True, text=True, timeout=100
        )
        if done.returncode != 0:
            pytest.skip(f"no bindings {version} for this Python and system: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
            wheel.extractall(target)
    return target


RTX_CALLS = {
    **CALLS,
    "ICudaEngine.create_runtime_config": (),
    "ICudaEngine.create_execution_context": ("runtime_config",),
    "IRuntimeConfig.create_runtime_cache": (),
    "IRuntimeConfig.set_runtime_cache": ("cache",),
    "IRuntimeCache.deserialize": ("blob",),
    "IRuntimeCache.serialize": (),
}


def test_calls_exist_in_tensorrt_for_rtx() -> None:
    """The library itself, as installed."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

    def find(name):
        return functools.reduce(getattr, name.split("."), trt)

    for name in ATTRIBUTES:
        assert find(name) is not None, name
    for name, parameters in RTX_CALLS.items():
        text = find(name).__doc__
        if name.startswith(("IProgressMonitor.", "ILogger.")):  # called by the library, by position
            assert text.count(":") > len(parameters), text
            continue
        for parameter in parameters:
            assert f"{parameter}: " in text, f"{name}: {parameter} is not in {text}"
