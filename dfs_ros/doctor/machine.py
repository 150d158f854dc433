"""Python, system, cores, memory, libraries."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Iterator

from dfs_ros.doctor.finding import Finding, version, words
from dfs_ros.system.cores import usable_cores
from dfs_ros.system.tracebacks import keep_traceback

REQUIRED = {
    "numpy": "numpy",
    "scipy": "scipy",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "tqdm": "tqdm",
    "psutil": "psutil",
}
"""Required modules and their packages."""

FOR_NETWORKS = ("torch", "safetensors")


def system() -> Iterator[Finding]:
    """Python, operating system, cores, memory."""
    old = sys.version_info < (3, 10)
    fix = "use Python 3.10 or later" if old else ""
    yield Finding("machine", "Python", platform.python_version(), "error" if old else "ok", fix)
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    yield Finding("machine", "system", f"{_system_name()}, {kernel}")
    usable = usable_cores()
    yield Finding("machine", "CPU", f"{usable} of {os.cpu_count()} cores usable")
    import psutil

    memory = psutil.virtual_memory()
    text = f"{memory.total / 1e9:.1f} GB, {memory.available / 1e9:.1f} GB free"
    if memory.available >= 1e9:
        yield Finding("machine", "memory", text)
    else:
        yield Finding("machine", "memory", text, "warning", "free 1 GB: images of 1.5 megapixels take about that")


def _system_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform(terse=True)


def libraries() -> Iterator[Finding]:
    """Required libraries."""
    for module, package in REQUIRED.items():
        yield library(module, package, f"pip install {package}")
    for package in FOR_NETWORKS:
        yield library(package, package, f"pip install {package}; or do without a network, --set network.name=none")


def library(module: str, package: str, fix: str) -> Finding:
    """Import a module as a test: an installed one can be broken."""
    try:
        imported = importlib.import_module(module)
    except Exception as error:
        keep_traceback(error)
        missing = isinstance(error, ModuleNotFoundError) and error.name == module
        return Finding("libraries", package, "not installed" if missing else words(error), "error", fix)
    return Finding("libraries", package, str(getattr(imported, "__version__", "")) or version(package) or "installed")
