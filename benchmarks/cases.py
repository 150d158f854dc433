"""Run the generators of awkward inputs, and judge what the commands make of each.

    python -m benchmarks.cases CASES [NAME ...]

CASES is a folder with a folder for each case (`case.md`, `gen.py`) and their `common.py`. Each generator makes its
input, runs `dfs` on it and prints figures. They are compared with the table of :mod:`benchmarks.case_expectations`.

Verdicts: RIGHT: the figure of case.md; REFUSED: no depth, and the message names the cause; WARNED: depth, with a
warning that names the cause; WRONG: anything else. Exit status: 0 none is WRONG, 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.case_expectations import EXPECTED, Verdict, judged

ROOT = Path(__file__).resolve().parents[1]
_LAUNCHER = '#!/bin/sh\nexec "{python}" -m dfs_ros.cli.main "$@"\n'
_MOST_CAUSE = 160


def main(argv: Sequence[str] | None = None) -> int:
    """Run and judge the cases; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cases", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("cases", metavar="CASES", type=Path, help="folder of the cases")
    parser.add_argument("names", metavar="NAME", nargs="*", help="cases to run (default: all)")
    parser.add_argument(
        "--timeout", metavar="S", type=float, default=300.0, help="limit of one case [s] (default: 300)"
    )
    parser.add_argument("--output", metavar="DIR", type=Path, help="folder to keep inputs, outputs and logs in")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    args = parser.parse_args(argv)
    names = args.names or sorted(path.parent.name for path in args.cases.glob("*/gen.py"))
    for name in names:
        if not (args.cases / name / "gen.py").is_file():
            parser.error(f"{args.cases / name}: expected a case with a gen.py")
    if not names:
        parser.error(f"{args.cases}: expected folders with a gen.py, received none")
    with tempfile.TemporaryDirectory() as scratch:
        folder = _workplace(args.cases, args.output or Path(scratch))
        verdicts = []
        for name in names:
            verdicts.append(_run(folder, name, args.timeout))
            if not args.json:
                print(_row(verdicts[-1]), flush=True)
    if args.json:
        print(json.dumps({"cases": [verdict._asdict() for verdict in verdicts]}, indent=2))
    else:
        counts = Counter(verdict.verdict for verdict in verdicts)
        print(f"{len(verdicts)} cases: " + ", ".join(f"{times} {kind}" for kind, times in sorted(counts.items())))
    return int(any(verdict.verdict == "WRONG" for verdict in verdicts))


def _workplace(cases: Path, folder: Path) -> Path:
    """Copy the generators, which write beside themselves, and make the `dfs` that they call.

    The generators expect `msg/` and `test/` two folders above `dfs`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(cases / "common.py", folder / "common.py")
    for generator in cases.glob("*/gen.py"):
        (folder / generator.parent.name).mkdir(exist_ok=True)
        shutil.copyfile(generator, folder / generator.parent.name / "gen.py")
    launcher = folder / ".venv" / "bin" / "dfs"
    launcher.parent.mkdir(parents=True, exist_ok=True)
    launcher.write_text(_LAUNCHER.format(python=sys.executable))
    launcher.chmod(0o755)
    for shared in ("msg", "test"):
        if not (folder / shared).exists():
            (folder / shared).symlink_to(ROOT / shared)
    return folder


def _run(folder: Path, name: str, timeout_s: float) -> Verdict:
    """Run one generator within its time, and judge its output."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "DFS": str(folder / ".venv" / "bin" / "dfs"), "PYTHONPATH": path}
    began = time.monotonic()
    with (folder / name / "log.txt").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "gen.py"],
            cwd=folder / name,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(timeout_s)
            late = ""
        except subprocess.TimeoutExpired:
            late = f"not done within {timeout_s:g} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log.seek(0)
        output = log.read().replace(f"{(folder / name).resolve()}/", "").replace(f"{folder / name}/", "")
    verdict = Verdict(name, "WRONG", late, "") if late else judged(name, output)
    return verdict._replace(seconds=round(time.monotonic() - began, 1))


def _row(verdict: Verdict) -> str:
    lines = [f"{verdict.verdict:<8} {verdict.name:<28} {verdict.seconds:5.1f} s  {verdict.figures}"]
    expected: Any = EXPECTED.get(verdict.name)
    if verdict.verdict == "WRONG" and expected is not None:
        lines.append(f"{'':<9}expected: {expected.figure}")
    if verdict.cause:
        cause = " ".join(verdict.cause.split())
        lines.append(f"{'':<9}{cause if len(cause) <= _MOST_CAUSE else cause[:_MOST_CAUSE] + ' ...'}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
