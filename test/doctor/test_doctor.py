"""`dfs doctor`: what it says is so, what it says is missing is missing, and nothing makes it fall over."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dfs_ros
from dfs_ros.cli import doctor as command
from dfs_ros.cli.main import main
from dfs_ros.config import DdsConfig
from dfs_ros.cost_volume import cuda
from dfs_ros.doctor import Diagnosis, Finding, Use, check, examine, gpu, guarded, machine, ros
from dfs_ros.network import Network
from dfs_ros.network.runners.base import Runner, RunnerMissing, WrongAnswer
from dfs_ros.network.runners.chain import ChainRunner
from dfs_ros.network.runners.torch import TorchRunner
from dfs_ros.network.weights import known_models, load_weights, model_file


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    return examine()


def found(findings: Any, name: str) -> Finding:
    (finding,) = [f for f in findings if f.name == name]
    return finding


def test_this_machine_can_run_what_its_tests_run(diagnosis: Diagnosis) -> None:
    assert diagnosis.can_run and diagnosis.errors == ()
    assert found(diagnosis.findings, "Python").value == platform.python_version()
    assert found(diagnosis.findings, "numpy").value == np.__version__
    assert found(diagnosis.findings, "torch").value == torch.__version__
    assert found(diagnosis.findings, "models").value.split(", ") == known_models()
    depth_m = float(found(diagnosis.findings, "depth of a rendered plane").value.split()[0])
    assert depth_m == pytest.approx(check.DEPTH_M, rel=check.TOLERANCE)
    assert "a node opens and closes" in found(diagnosis.findings, "transport").value
    assert {f.state for f in diagnosis.findings} <= {"ok", "absent", "warning"}
    if not torch.cuda.is_available():
        assert found(diagnosis.findings, "CUDA device").state == "absent"


def test_what_will_be_used_is_what_the_estimate_ran_on(diagnosis: Diagnosis) -> None:
    uses = {use.what: use for use in diagnosis.uses}
    assert set(uses) == {"cost volume", "network", "transport"}
    if not torch.cuda.is_available():
        assert uses["cost volume"].choice.startswith("cpu, ") and uses["cost volume"].why.startswith("no ")
        assert uses["network"].choice == "light, torch on cpu"
        why = uses["network"].why
        assert why.startswith("the chain is torch on the CPU; what needs a GPU is left out")
    assert uses["transport"].choice.startswith(("ROS 2 by DDS", "native ROS 2"))


def test_the_chain_of_runners_is_told_with_what_each_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Runner:
        raise RunnerMissing("tensorrt: cannot be imported (No module named 'tensorrt')")

    def wrong() -> Runner:
        raise WrongAnswer("its depth differs from PyTorch's by 0.2 of the range, over 0.005")

    module = load_weights(model_file("light"))
    links = [("tensorrt fp16", missing), ("tensorrt_rtx fp16", wrong), ("torch", lambda: TorchRunner(module, "cpu"))]
    monkeypatch.setattr(cuda, "why_not", lambda: None)
    assert check._why_network(Network("light", ChainRunner(links))) == (
        "the chain is tensorrt fp16 -> tensorrt_rtx fp16 -> torch; "
        "tensorrt fp16: tensorrt: cannot be imported (No module named 'tensorrt'); "
        "tensorrt_rtx fp16: its depth differs from PyTorch's by 0.2 of the range, over 0.005"
    )
    assert check._why_network(None) == "the default"


def test_the_text_has_every_finding_and_its_fix() -> None:
    findings = (
        Finding("machine", "Python", "3.11"),
        Finding("ROS 2", "rclpy", "not installed", "absent", "install it"),
        Finding("ROS 2", "socket buffer", "too small", "warning", "enlarge it"),
    )
    lines = command.describe(Diagnosis(findings, (Use("network", "none", "as asked"),))).splitlines()
    assert lines[0].startswith(f"dfs_ros {dfs_ros.__version__}")
    assert [line for line in lines if line in ("machine", "ROS 2", "will be used")] == [
        "machine",
        "ROS 2",
        "will be used",
    ]
    for line in (
        "  Python         3.11",
        "- rclpy          not installed",
        "                 -> install it",
        "! socket buffer  too small",
        "  network        none; as asked",
    ):
        assert line in lines
    assert lines[-1] == "The main job, camera to depth, runs here."
    broken = command.describe(Diagnosis((*findings, Finding("libraries", "torch", "not installed", "error", "x")), ()))
    assert broken.splitlines()[-1] == "The main job, camera to depth, does not run here: torch."
    assert "X torch" in broken


def test_a_probe_that_fails_is_a_finding() -> None:
    def probe() -> Iterator[Finding]:
        yield Finding("machine", "first", "found")
        raise RuntimeError("no\n such   thing")

    first, second = guarded("machine", "thing", probe)
    assert first.name == "first"
    assert second == Finding("machine", "thing", "could not be found out: RuntimeError: no such thing", "warning")


def test_a_library_that_is_there_but_broken_is_told_from_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_library.py").write_text("raise OSError('libsomething.so: cannot open shared object file')")
    (tmp_path / "lacking_library.py").write_text("import absent_library_xyz")
    monkeypatch.syspath_prepend(tmp_path)
    assert machine.library("absent_library_xyz", "xyz", "get it") == Finding(
        "libraries", "xyz", "not installed", "error", "get it"
    )
    broken = machine.library("broken_library", "broken", "get it")
    assert (broken.state, broken.value) == ("error", "OSError: libsomething.so: cannot open shared object file")
    assert "absent_library_xyz" in machine.library("lacking_library", "lacking", "get it").value


@pytest.mark.parametrize(
    ("rmem_max", "state"),
    [("212992\n", "warning"), ("3000000\n", "warning"), ("4194304\n", "ok"), ("16777216\n", "ok")],
)
def test_the_socket_buffer_is_enough_for_1080p_or_not(tmp_path: Path, rmem_max: str, state: str) -> None:
    file = tmp_path / "rmem_max"
    file.write_text(rmem_max)
    (finding,) = ros.buffers(file)
    assert finding.state == state
    assert finding.value.startswith(f"net.core.rmem_max is {int(rmem_max) / 1e6:.1f} MB")
    wanted = f"sudo sysctl -w net.core.rmem_max={DdsConfig().receive_buffer_bytes}"
    assert finding.fix.startswith(wanted) == (state == "warning")


def test_a_socket_buffer_that_nobody_knows(tmp_path: Path) -> None:
    (finding,) = ros.buffers(tmp_path / "none")
    assert finding.state == "absent"


@pytest.mark.parametrize(
    ("variable", "value", "name", "state", "text"),
    [
        ("ROS_DOMAIN_ID", "7", "domain", "ok", "7 (ROS_DOMAIN_ID=7)"),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET", "discovery", "ok", "subnet (ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET)"),
        ("ROS_STATIC_PEERS", "robot.local", "discovery", "ok", "localhost, and the hosts robot.local (ROS_AUTO"),
        ("ROS_DOMAIN_ID", "300", "ROS_DOMAIN_ID", "error", "ROS_DOMAIN_ID: expected a number from 0 to 232"),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "MOON", "ROS_AUTOMATIC_DISCOVERY_RANGE", "error", "received 'MOON'"),
    ],
)
def test_the_environment_of_ros(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str, state: str, text: str
) -> None:
    for other in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_STATIC_PEERS", "ROS_LOCALHOST_ONLY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(variable, value)
    finding = found(list(ros.discovery()), name)
    assert finding.state == state and text in finding.value
    assert finding.fix == ("" if state == "ok" else f"unset {variable}, or set it to what is expected")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\n", "550.54.14"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build\n", "560.35.03"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\n", "540.4.0"),
    ],
)
def test_driver_version(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "version"
    file.write_text(f"{text}GCC version:  gcc version 12.3.0\n")
    assert gpu.driver_version(file) == expected


def nvidia_smi(folder: Path, script: str) -> None:
    file = folder / "nvidia-smi"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch can use the GPUs of this machine")
def test_a_gpu_that_pytorch_cannot_use_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, 'case "$1" in *name*) echo "NVIDIA RTX 4000, Ada, 8.9";; *) echo 555.42;; esac')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpu.driver_version(tmp_path / "none") == "555.42"
    (finding,) = gpu.devices()
    assert (finding.name, finding.state) == ("NVIDIA RTX 4000, Ada, sm_89", "warning")
    assert finding.fix.startswith("install a CUDA build" if torch.version.cuda is None else "update the driver")


@pytest.mark.parametrize("script", ["exit 9", "echo NVIDIA-SMI has failed; exit 1", "kill -9 $$"])
def test_a_broken_nvidia_smi_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    nvidia_smi(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpu.gpus_of_the_driver() == [] and gpu.driver_version(tmp_path / "none") is None


LACKING = """
import sys
blocked = set({blocked!r})

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from dfs_ros.cli.main import main
sys.exit(main(["doctor", "--json"]))
"""


def doctor_without(*modules: str) -> tuple[int, dict[str, Any]]:
    result = subprocess.run(
        [sys.executable, "-c", LACKING.format(blocked=modules)], capture_output=True, text=True, timeout=240
    )
    return result.returncode, json.loads(result.stdout)


def test_without_libraries_it_says_which_and_how_to_get_them() -> None:
    status, report = doctor_without("torch", "cyclonedds", "viser", "rclpy")
    findings = [Finding(**values) for values in report["findings"]]
    assert status == 1 and report["can_run"] is False
    torch_finding = found(findings, "torch")
    assert (torch_finding.value, torch_finding.state) == ("not installed", "error")
    assert "pip install torch" in torch_finding.fix and "network.name=none" in torch_finding.fix
    assert found(findings, "safetensors").state == "ok"
    plane, transport = found(findings, "depth of a rendered plane"), found(findings, "transport")
    assert plane.state == "error" and "No module named 'torch'" in plane.value
    assert transport.state == "error" and "needs the Python package cyclonedds" in transport.value
    viewer = found(findings, "viser")
    assert (viewer.state, viewer.fix) == ("warning", "pip install viser")
    assert report["uses"] == []


def test_without_the_foundation_it_still_speaks() -> None:
    status, report = doctor_without("numpy", "cv2", "yaml", "psutil")
    findings = [Finding(**values) for values in report["findings"]]
    assert status == 1
    assert [found(findings, n).value for n in ("numpy", "opencv-python-headless", "pyyaml", "psutil")] == [
        "not installed"
    ] * 4
    assert found(findings, "Python").state == "ok" and found(findings, "CPU").state == "ok"


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("The main job, camera to depth, runs here.\n")
    for heading in ("machine", "libraries", "GPU", "ROS 2", "models and viewer", "check", "will be used"):
        assert f"\n{heading}\n" in printed
    assert max(map(len, printed.splitlines())) < 200
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["can_run"] is True and report["dfs_ros"] == dfs_ros.__version__
    assert {"findings", "uses"} <= set(report)


def test_ros_without_our_own_messages_is_told_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from dfs_ros.transport import chosen_kind, open_transport
    from dfs_ros.transport.base import TransportError

    monkeypatch.setitem(sys.modules, "rclpy", types.ModuleType("rclpy"))
    monkeypatch.setitem(sys.modules, "dfs_ros.msg", None)  # as if it were not there
    finding = found(ros.packages(), "dfs_ros.msg")
    assert (finding.value, finding.state) == ("not built", "absent")
    assert "build this package with colcon" in finding.fix
    assert chosen_kind("auto") == "dds"
    with pytest.raises(
        TransportError, match=r"dfs_ros\.msg.*; build this package with colcon .*, or use transport dds"
    ):
        open_transport("ros", "node")
