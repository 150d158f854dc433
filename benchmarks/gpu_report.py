"""Report of gpu_check in Markdown."""

from __future__ import annotations

from typing import Any

from dfs_ros.io.markdown import markdown_table

TARGETS_MS = {  # on a data-centre card of 2024
    "residual 256x256x5x64": 1.0,
    "residual 640x480x5x64": 5.0,
    "network 256x256x64, torch": 1.0,
    "end to end 256x256": 4.0,
    "live 640x480": 33.0,
}
TARGETS_MB = {"residual 640x480x5x64": 400.0, "end to end 640x480, no network": 400.0}


def markdown(report: dict[str, Any]) -> str:
    """Report in Markdown: checks not run, times, targets and floors, networks, missed targets."""
    where = report["machine"]
    lines = [
        f"# CUDA check: {where['card']}",
        "",
        f"Driver {where['driver']}, CUDA {where['cuda']}, PyTorch {where['torch']}, kernels {where['kernels']}, commit "
        f"{where['commit']}.",
        "",
    ]
    if report.get("running"):
        lines += [f"**Cut during: {report['running']}.**", ""]
    if report.get("not_run"):
        lines += ["Not run:", *(f"- {name}: {reason}" for name, reason in report["not_run"].items()), ""]
    if "parity" in report:
        good = sum(row["passed"] for row in report["parity"])
        lines += [f"Parity: {good} of {len(report['parity'])} comparisons within their tolerance.", ""]
    if "copy_bandwidth_gb_per_s" in report:
        lines += [f"Copy: {report['copy_bandwidth_gb_per_s']:.0f} GB/s.", ""]
    for table in (_volumes(report), _networks(report), _estimates(report)):
        lines += [table, ""] if table else []
    if "compute_sanitizer" in report:
        text = ", ".join(f"{tool} {r['status']}" for tool, r in report["compute_sanitizer"].items())
        lines += [f"compute-sanitizer (0 = clean): {text}.", ""]
    lines.append("Missed:" if report["missed"] else "All checks that ran passed.")
    return "\n".join([*lines, *(f"- {line}" for line in report["missed"])]) + "\n"


def _volumes(report: dict[str, Any]) -> str:
    rows = []
    for name, row in report.get("volumes", {}).items():
        floor = f"{row['floor']['at_copy_bandwidth_ms']:.3f} ms" if "floor" in row else ""
        target = f"{TARGETS_MS[name]} ms" if name in TARGETS_MS else ""
        ms = [f"{row[way]['median_ms']:.3f} ms" if way in row else "" for way in ("eager", "graph")]
        rows.append([name, *ms, floor, target, _mb(row["peak_tensor_mb"]), _mb(row.get("planned_mb"))])
    heads = ["volume", "launched", "graph", "floor of memory", "target", "memory", "planned"]
    return markdown_table(heads, rows) if rows else ""


def _networks(report: dict[str, Any]) -> str:
    rows = []
    for name, row in report.get("networks", {}).items():
        if "absent" in row:
            rows.append([name, "", "", " ".join(row["absent"].split())])
        else:
            rows.append([name, f"{row['median_ms']:.3f} ms", f"{row['difference']:.1e}", row["ran"]])
    heads = ["network", "time", "difference, share of the range", "ran in"]
    return markdown_table(heads, rows) if rows else ""


def _estimates(report: dict[str, Any]) -> str:
    rows = []
    for name, row in report.get("estimates", {}).items():
        steps = ", ".join(f"{step} {ms:.2f} ms" for step, ms in row["steps_ms"].items())
        memory = [_mb(row["peak_tensor_mb"]), _mb(row.get("planned_mb"))]
        target = f"{TARGETS_MS[name]} ms" if name in TARGETS_MS else ""
        rows.append([name, f"{row['median_ms']:.2f} ms", target, steps, row["network"], *memory])
    heads = ["frames to depth", "time", "target", "steps", "network", "memory", "planned"]
    return markdown_table(heads, rows) if rows else ""


def _mb(megabytes: float | None) -> str:
    return "" if megabytes is None else f"{megabytes:.0f} MB"
