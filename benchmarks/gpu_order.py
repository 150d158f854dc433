"""Order of checks with a time limit, and programs that end with it; imports no PyTorch."""

from __future__ import annotations

import subprocess
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import psutil

Report = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """A check: ``run(report, seconds left)`` returns what it missed; not begun with under `least_s` left."""

    name: str
    least_s: float
    run: Callable[[Report, float], list[str]] = field(repr=False)


class NotRun(Exception):
    """A check that could not run here, with the reason."""


class Cut(NotRun):
    """A check that was ended as time ran out."""

    def __init__(self, left_s: float) -> None:
        super().__init__(f"cut after {left_s:.0f} s")


def run_in_order(checks: Sequence[Check], report: Report, limit_s: float, keep: Callable[[Report], None]) -> None:
    """Run the checks, at most `limit_s` seconds of them; `keep` gets the report before and after each.

    The report says which check is `running`, which are `not_run` and why, which of these were `short_of_time`, and what
    was `missed`. A check that raises is missed; the next one runs.
    """
    begin = monotonic()
    report |= {"running": "", "not_run": {check.name: "not reached" for check in checks}}
    report |= {"short_of_time": [], "missed": [], "seconds": {}}
    for check in checks:
        began = monotonic()
        left = limit_s - (began - begin)
        if left < check.least_s:
            report["not_run"][check.name] = f"{left:.0f} s of {limit_s:g} s left, {check.least_s:g} s needed"
            report["short_of_time"].append(check.name)
            keep(report)
            continue
        report["running"] = check.name
        keep(report)
        try:
            report["missed"] += check.run(report, left)
            del report["not_run"][check.name]
        except NotRun as reason:
            report["not_run"][check.name] = str(reason)
            report["short_of_time"] += [check.name] * isinstance(reason, Cut)
        except Exception as error:  # a CUDA error too: what ran before is kept, and the next check tried
            del report["not_run"][check.name]
            report["missed"].append(f"{check.name}: {type(error).__name__}: {error}")
            report.setdefault("errors", {})[check.name] = traceback.format_exc()
        report["seconds"][check.name] = round(monotonic() - began, 1)
        report["running"] = ""
        keep(report)


def outcome_of(command: Sequence[str], timeout_s: float) -> tuple[int | None, str]:
    """Exit status and output of a program; None if it, with all that it started, was ended after `timeout_s`."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said, _ = process.communicate(timeout=timeout_s)
            return process.returncode, said
        except subprocess.TimeoutExpired:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            said, _ = process.communicate()
            return None, said
