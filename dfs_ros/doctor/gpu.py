"""NVIDIA GPUs, kernel compilers and network runners."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from dfs_ros.doctor.finding import Finding, installed, version

_COMMAND_TIMEOUT_S = 10.0
_DRIVER_FILE = Path("/proc/driver/nvidia/version")


def devices() -> Iterator[Finding]:
    """CUDA devices usable by PyTorch, and other GPUs."""
    driver = driver_version()
    build = None
    if installed("torch"):
        import torch

        build = torch.version.cuda
        if torch.cuda.is_available():
            for i in range(torch.cuda.device_count()):
                device = torch.cuda.get_device_properties(i)
                parts = (device.name, f"sm_{device.major}{device.minor}", f"{device.total_memory / 1e9:.0f} GB")
                software = f"driver {driver or 'unknown'}, PyTorch for CUDA {build}"
                yield Finding("GPU", f"CUDA device {i}", f"{', '.join(parts)}, {software}")
            return
    gpus = gpus_of_the_driver()
    if build is None:
        fix = "install a CUDA build of PyTorch"
    else:
        fix = f"update the driver ({driver}), or install PyTorch for an older CUDA than {build}"
    for name in gpus:
        yield Finding("GPU", name, "there, but PyTorch cannot use it", "warning", fix)
    if not gpus:
        yield Finding("GPU", "CUDA device", f"none (NVIDIA driver: {driver or 'none'})", "absent")


def driver_version(file: Path = _DRIVER_FILE) -> str | None:
    """Version of the NVIDIA driver; None without one."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", file.read_text())
    except OSError:
        found = None
    if found:
        return found[1]
    return next(iter(_nvidia_smi("driver_version")), None)


def gpus_of_the_driver() -> list[str]:
    """Names and architectures of the driver's GPUs, usable by PyTorch or not."""
    rows = (row.rpartition(",") for row in _nvidia_smi("name,compute_cap"))
    return [f"{name.strip()}, sm_{capability.strip().replace('.', '')}" for name, _, capability in rows]


def _nvidia_smi(query: str) -> list[str]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    arguments = [command, f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        result = subprocess.run(arguments, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in result.stdout.splitlines() if line.strip()] if result.returncode == 0 else []


def compilers() -> Iterator[Finding]:
    """Compilers of the CUDA kernels."""
    from dfs_ros.cost_volume.cuda import build

    causes: list[str] = []
    names = [compiler.name for compiler in build.compilers(causes)]
    if names:
        yield Finding("GPU", "CUDA compiler", ", ".join(dict.fromkeys(names)))
    else:
        yield Finding("GPU", "CUDA compiler", "; ".join(causes), "absent")


def runners() -> Iterator[Finding]:
    """Network runners beside PyTorch."""
    for module in ("tensorrt", "tensorrt_rtx"):
        # Not imported: the import takes seconds, and loads the driver.
        if not installed(module):
            yield Finding("GPU", module, "not installed", "absent")
        else:
            yield Finding("GPU", module, version(module) or version(module.replace("_", "-")) or "installed")
    if not installed("onnxruntime"):
        yield Finding("GPU", "onnxruntime", "not installed", "absent")
    else:
        import onnxruntime

        providers = ", ".join(onnxruntime.get_available_providers())
        yield Finding("GPU", "onnxruntime", f"{onnxruntime.__version__}, {providers}")
