"""Examination of this machine: parts found and parts that will be used.

The parts that will be used are tested: a small focal stack of known depth is rendered and estimated with the default
settings, and a node is opened on the transport of `auto`. A fault of a probe is a finding. At its top level this
package imports the standard library only, so that it works in a broken installation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dfs_ros.doctor import check, gpu, machine, ros
from dfs_ros.doctor.finding import Finding, Use, words
from dfs_ros.system.tracebacks import keep_traceback

__all__ = ["Diagnosis", "Finding", "Use", "examine", "guarded"]

Probe = Callable[[], Iterator[Finding]]


@dataclass(frozen=True)
class Diagnosis:
    """All findings and choices."""

    findings: tuple[Finding, ...]
    uses: tuple[Use, ...]

    @property
    def errors(self) -> tuple[str, ...]:
        """Names of the findings that prevent the main job, camera to depth."""
        return tuple(finding.name for finding in self.findings if finding.state == "error")

    @property
    def can_run(self) -> bool:
        """True if the main job, camera to depth, runs here."""
        return not self.errors


def examine() -> Diagnosis:
    """Examine this machine. Takes a few seconds, most of them to import torch. Never raises."""
    uses: list[Use] = []
    probes: tuple[tuple[str, str, Probe], ...] = (
        ("machine", "machine", machine.system),
        ("libraries", "libraries", machine.libraries),
        ("GPU", "GPU", gpu.devices),
        ("GPU", "CUDA compiler", gpu.compilers),
        ("GPU", "network runners", gpu.runners),
        ("ROS 2", "ROS 2", ros.packages),
        ("ROS 2", "DDS", ros.discovery),
        ("ROS 2", "socket buffer", ros.buffers),
        ("models and viewer", "models", check.models),
        ("models and viewer", "viewer", check.viewer),
        ("check", "depth of a rendered plane", lambda: check.estimate(uses)),
        ("check", "transport", lambda: check.open_node(uses)),
    )
    findings = [finding for topic, name, probe in probes for finding in guarded(topic, name, probe)]
    return Diagnosis(tuple(findings), tuple(uses))


def guarded(topic: str, name: str, probe: Probe) -> list[Finding]:
    """Findings of a probe; a failure becomes a finding."""
    found: list[Finding] = []
    try:
        found.extend(probe())
    except Exception as error:
        keep_traceback(error)
        found.append(Finding(topic, name, f"could not be found out: {words(error)}", "warning"))
    return found
