"""Who does not belong: other hosts, other web pages, live parameters, captures, caches of others, forged log lines."""

from __future__ import annotations

import logging
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults import two_hosts
from benchmarks.faults.parts import Options, Row
from benchmarks.faults.rig import FOCUS_DIOPTERS, Rig
from dfs_ros.config import Config, ViewerConfig, sections
from dfs_ros.messages.convert import TRIGGER, Message
from dfs_ros.messages.definitions import message
from dfs_ros.system.folders import cache_folder
from dfs_ros.transport.local import LocalTransport
from dfs_ros.transport.parameters import Parameters

_CAPTURES = 12
_OUTSIDE = (
    "node.capture_folder",
    "camera.stack",
    "v4l2.device",
    "v4l2.calibration",
    "v4l2.camera_info",
    "network.name",
)


def run(options: Options) -> list[Row]:
    """A row for each door."""
    doors: tuple[tuple[str, Callable[[], tuple[int, list[str]]]], ...] = (
        ("other hosts over DDS", _other_hosts),
        ("paths and devices set at run time", _live_paths),
        ("captures beyond folder, rate and quota", _captures),
        ("other origins and hosts in the viewer", _other_pages),
        ("caches of other users", _caches),
        ("forged lines of the log", _forged_lines),
    )
    rows = []
    for name, attempt in doors:
        if options.time_is_over:
            break
        tried, broke = attempt()
        rows.append(Row(f"security: {name}", tried, len(broke) if tried else 0, "; ".join(broke)))
    return rows


def _other_hosts() -> tuple[int, list[str]]:
    found = two_hosts.results()
    if isinstance(found, str):
        return 0, [found]
    closed, invited = found["default"], found["subnet"]
    broke = [f"{name}: {closed[name]}" for name in closed if "other host" in name and closed[name]]
    broke += [f"{name}: 0" for name in closed if "same host" in name and not closed[name]]
    broke += [f"invited, {name}: 0" for name, count in invited.items() if not count]
    return len(closed) + len(invited), broke


def _live_paths() -> tuple[int, list[str]]:
    parameters = Parameters(Config())
    broke = []
    texts = [
        f"{section}.{key}"
        for section, settings in sections(Config())
        for key, value in vars(settings).items()
        if isinstance(value, str) and not parameters.metadata(f"{section}.{key}")["choices"]
    ]
    for name in texts:  # free text may be a path
        try:
            parameters.set({name: "/etc/passwd"})
            broke.append(f"{name} was set")
        except ValueError:
            pass
    return len(texts), broke + [f"{name} is not among them" for name in _OUTSIDE if name not in texts]


def _captures() -> tuple[int, list[str]]:
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "captures"
        most, megabytes = 4, 0.13
        limits = {"capture_folder": str(folder), "captures_per_minute": most, "capture_megabytes": megabytes}
        rig = Rig({"node": limits})
        answers: list[Message] = []
        try:
            for _ in range(_CAPTURES):
                answers += _captured(rig)
        finally:
            rig.close()
        stacks = [path for path in folder.iterdir() if path.is_dir()]
        held = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        broke = [f"{path} was written" for path in Path(home).iterdir() if path != folder]
        if not 0 < len(stacks) <= most:
            broke.append(f"{len(stacks)} stacks were written")
        if held > 1.5 * megabytes * 1e6:
            broke.append(f"{held} bytes were written")
        reasons = " ".join(answer.message for answer in answers if not answer.success)
        broke += [f"no refusal names {name}" for name in list(limits)[1:] if name not in reasons]
        return len(answers), broke


def _captured(rig: Rig) -> list[Message]:
    """Ask for a capture while a sweep comes; the answer."""
    answers: list[Any] = []
    rig.sweep()
    answer = rig.node._capture(message(f"{TRIGGER}_Request"))
    if not hasattr(answer, "result"):
        return [answer]
    for i in range(len(FOCUS_DIOPTERS)):
        rig.send_frame(i)
    rig.sweeps += 1
    answers.append(answer.result(60))
    return answers


def _other_pages() -> tuple[int, list[str]]:
    from dfs_ros.viewer.viewer import Viewer

    own, other = "127.0.0.1", "evil.example"
    broke = []
    with Viewer(ViewerConfig(port=0)) as viewer:
        port = viewer.url.rpartition(":")[2]
        cases = (
            ({"Host": f"{own}:{port}"}, 200),
            ({"Host": f"{other}:{port}"}, 403),
            ({"Host": f"{own}:{port}", "Origin": f"http://{other}"}, 403),
            ({"Host": f"{other}:{port}", "Origin": f"http://{other}:{port}"}, 403),
            ({"Host": f"{own}:{port}", "Origin": "null"}, 403),
        )
        for headers, expected in cases:
            try:
                status = urllib.request.urlopen(urllib.request.Request(viewer.url, headers=headers), timeout=60).status
            except urllib.error.HTTPError as error:
                status = error.code
            if status != expected:
                broke.append(f"{headers}: {status} instead of {expected}")
    return len(cases), broke


def _caches() -> tuple[int, list[str]]:
    broke = []
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as home:
        try:
            for name, mode in (("private", 0o700), ("open", 0o777)):
                folder = Path(home) / name
                folder.mkdir()
                folder.chmod(mode)
                os.environ["XDG_CACHE_HOME"] = str(folder)
                cache = cache_folder("engines")
                if (folder in cache.parents) != (name == "private"):
                    broke.append(f"a cache in a folder of mode {mode:o}: {cache}")
                if folder in cache.parents and cache.stat().st_mode & 0o077:
                    broke.append(f"a cache of mode {cache.stat().st_mode:o}")
        finally:
            os.environ.pop("XDG_CACHE_HOME")
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before
    return 2, broke


def _forged_lines() -> tuple[int, list[str]]:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("dfs_ros").addHandler(handler)
    texts = ("a\n[INFO] all is well", "a\r\x1b[2J", "a\u202eb", "a\x00b", "a\x9b31m")
    try:
        with LocalTransport("node") as node:
            for text in texts:
                with node.guard(f"/topic {text}"):
                    raise ValueError(text)
    finally:
        logging.getLogger("dfs_ros").removeHandler(handler)
    broke = [repr(line) for line in lines if not line.isprintable()]
    return len(texts), broke + ([] if len(lines) == len(texts) else [f"{len(lines)} lines of {len(texts)}"])
