"""No library of the package reports its use to anybody."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def test_onnx_runtime_is_told_to_report_nothing() -> None:
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    code = "import dfs_ros, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_importing_the_runners_opens_no_connection(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    if shutil.which("strace") is None:
        pytest.skip("strace, which shows connections, is not installed")
    log = tmp_path / "calls"
    code = "import dfs_ros, onnxruntime, time; time.sleep(2)"
    command = ["strace", "-f", "-e", "trace=connect", "-o", str(log), sys.executable, "-c", code]
    traced = subprocess.run(command, capture_output=True, text=True, check=False)
    if traced.returncode:
        pytest.skip(f"strace may not trace here: {traced.stderr[-200:]}")
    assert not [line for line in log.read_text().splitlines() if "AF_INET" in line]
