"""Everything that writes, each with the check of what lies at its destination: whole, and of one writer, or absent."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from dfs_ros.cli.focus_table import add_point
from dfs_ros.cli.main import main
from dfs_ros.config import NodeConfig
from dfs_ros.io.images import write_png
from dfs_ros.io.importing import import_folder
from dfs_ros.io.results import write_result
from dfs_ros.io.stack_description import read_description
from dfs_ros.io.stack_folder import load_stack, read_reference_depth, save_stack
from dfs_ros.io.strict_json import json_text
from dfs_ros.lens.table import LensTable
from dfs_ros.messages.definitions import message, serialize
from dfs_ros.network.runners.engine_cache import EngineCache, EngineKey
from dfs_ros.node.capture import Capture
from dfs_ros.stacks.assembler import FrameStack
from dfs_ros.system.atomic import staged, write_atomically
from dfs_ros.system.cache import keep, keep_array, read_array, read_kept
from dfs_ros.system.staging import remove_abandoned
from dfs_ros.transport.bag.files import BagReader
from dfs_ros.transport.bag.output import bag_output
from dfs_ros.transport.bag.recording import recording
from dfs_ros.transport.base import RELIABLE
from dfs_ros.types import Camera, DepthResult, FocalStack, Frame

SIZE = (96, 128)
_CAMERA = Camera(0.004, 2.0, 4e-6)
_LATE = ("cli.simulate", "network.light", "network.weights", "transport.bag.storage")
_RESULT_FILES = 8
_MESSAGES, _FLUSHED = 60, 10
_ENGINE = EngineKey("0", "trt", "1", "gpu", "9.0", "12", "5", "fp16", "1x1", "")
_TYPE, _TOPIC = "std_msgs/msg/UInt8MultiArray", "/data"

Report = Callable[[int], None]
"""Called by a recorder with the number of messages that are on the disk."""


class Writer(NamedTuple):
    """`write(destination, version, report)`; `problem(destination, least)`: what is wrong there, "" for nothing.

    `version` sets all content, so that a mixture of two shows. `records`: the destination may hold a part, of at least
    `least` messages.
    """

    name: str
    write: Callable[[Path, int, Report], None]
    problem: Callable[[Path, int], str]
    records: bool = False
    over_old: bool = True


def _noise(version: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(version).integers(1, 256, shape, np.uint8)


def _stack(version: int) -> FocalStack:
    return FocalStack(_noise(version, 3, *SIZE), np.array([2.0, 1.0, 0.5]), _CAMERA)


def _result(folder: Path, version: int, report: Report) -> None:
    depth = np.full(SIZE, 1.0 + version, np.float32)
    write_result(DepthResult(depth, depth, depth, np.full((*SIZE, 3), version, np.uint8), _CAMERA), folder)


def _result_problem(folder: Path, least: int) -> str:
    names = {p.name for p in folder.iterdir()}
    if len(names) < _RESULT_FILES - 1 or "report.json" not in names:
        return f"only {', '.join(sorted(names))}"
    depth, sigma = (np.load(folder / name, allow_pickle=False) for name in ("depth.npy", "sigma.npy"))
    if depth.shape != SIZE or np.unique([*np.unique(depth), *np.unique(sigma)]).size != 1:
        return "depth and sigma of two results"
    return "" if (folder / "points.ply").stat().st_size > depth.size * 15 else "points.ply is short"


def _save(folder: Path, version: int, report: Report) -> None:
    pictures = {"scene.png": _noise(version, *SIZE, 3)}
    save_stack(_stack(version), folder, "", np.full(SIZE, 1.0, np.float32), "true_depth.npy", pictures)


def _stack_problem(folder: Path, least: int) -> str:
    stack = load_stack(folder)
    if not any(np.array_equal(stack.images, _stack(version).images) for version in (1, 2)):
        return "images of no stack"
    depth = read_reference_depth(read_description(folder))
    return "" if (folder / "scene.png").is_file() == (depth is not None) else "files are missing"


def _import(folder: Path, version: int, report: Report) -> None:
    photos = folder.parent / f"photos{version}"
    if not photos.is_dir():
        photos.mkdir()
        for i, image in enumerate(_stack(version).images):
            write_png(photos / f"{i}.png", image)
        lines = [f"{i}.png,{diopters}" for i, diopters in enumerate((2.0, 1.0, 0.5))]
        (photos / "focus.csv").write_text("\n".join(["file,focus_diopters", *lines]))
    import_folder(photos, folder, photos / "focus.csv", focal_length_m=0.004, f_number=2.0, pixel_pitch_m=4e-6)


def _file(file: Path, version: int, report: Report) -> None:
    content = _noise(version, 100_000).tobytes()
    write_atomically(file, hashlib.sha256(content).digest() + content)


def _file_problem(file: Path, least: int) -> str:
    content = file.read_bytes()
    return "" if hashlib.sha256(content[32:]).digest() == content[:32] else "its hash differs"


def _kept(file: Path, version: int, report: Report) -> None:
    keep(file, _noise(version, 100_000).tobytes())


def _kept_problem(file: Path, least: int) -> str:
    return "" if read_kept(file) is not None else "damaged"


def _array(file: Path, version: int, report: Report) -> None:
    keep_array(file, np.full((300, 400), version, np.uint8))


def _array_problem(file: Path, least: int) -> str:
    array = read_array(file, (300, 400), np.uint8)
    return "" if array is not None and np.unique(array).size == 1 else "damaged"


def _weights(file: Path, version: int, report: Report) -> None:
    from dfs_ros.network.light import LightArchitecture, LightNetwork
    from dfs_ros.network.weights import save_network

    save_network(file, LightNetwork().state_dict(), LightArchitecture(), {"version": version})


def _weights_problem(file: Path, least: int) -> str:
    from dfs_ros.network.weights import load_weights

    load_weights(file)
    return ""


def _simulate(folder: Path, version: int, report: Report) -> None:
    arguments = ["simulate", "--output", str(folder), "--size", "96x64", "--seed", str(version), "--scene", "plane"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        status = main(arguments)
    if status == 2:
        raise OSError(said.getvalue())
    if status:
        raise RuntimeError(f"status {status}: {said.getvalue()}")


def _simulation_problem(folder: Path, least: int) -> str:
    description = read_description(folder)
    depth = read_reference_depth(description)
    files = all((folder / name).is_file() for name in ("scene.png", "true_depth.png"))
    return "" if len(load_stack(folder)) == 5 and depth is not None and files else "files are missing"


def _capture(folder: Path, version: int, report: Report) -> None:
    stack = _stack(version)
    frames = [
        Frame(image, float(d), i + 1) for i, (image, d) in enumerate(zip(stack.images, (2.0, 1.0, 0.5), strict=True))
    ]
    capture = Capture(lambda *_, **__: None, NodeConfig(capture_folder=str(folder)), time.monotonic_ns)
    said = capture.write(FrameStack(tuple(frames), 3, 1, True), _CAMERA, lambda go_on: go_on({})).result()
    capture.close()
    if not said.success:
        raise OSError(said.message)


def _captures_problem(folder: Path, least: int) -> str:
    remove_abandoned(folder)
    return "; ".join(filter(None, (_stack_problem(place, 0) for place in folder.iterdir())))


def _calibration(file: Path, version: int, report: Report) -> None:
    document: dict[str, Any] = {"format": "lens-table/1", "note": f"{version} " * 5000, "points": []}
    for raw in (0, 100, 250):
        add_point(document, raw, raw / 50.0 / version, 0.5)
    write_atomically(file, yaml.safe_dump(document, sort_keys=False).encode())


def _calibration_problem(file: Path, least: int) -> str:
    return "" if len(LensTable.load(file).raw) == 3 else "points are missing"


def _engine(folder: Path, version: int, report: Report) -> None:
    cache = EngineCache(folder)
    plan = _noise(version, 200_000).tobytes()
    cache.obtain(_ENGINE, lambda: plan, lambda content: content, lambda engine: {"difference": 0.0})
    cache.write_compiled(_ENGINE, plan)
    if cache.read(_ENGINE) is None:
        raise OSError("no engine was kept")


def _engine_problem(folder: Path, least: int) -> str:
    cache = EngineCache(folder)
    remove_abandoned(folder)
    plan = cache.read(_ENGINE)
    return "" if plan in (None, *(_noise(version, 200_000).tobytes() for version in (1, 2))) else "a damaged engine"


def _report(folder: Path, version: int, report: Report) -> None:
    with staged(folder, last="table.md") as staging:
        for name in ("scores.json", "predictions.json", "table.md"):
            (staging / name).write_text(json_text({"version": version, "scores": [version] * 9000}))


def _report_problem(folder: Path, least: int) -> str:
    found = [json.loads((folder / name).read_text()) for name in ("scores.json", "predictions.json", "table.md")]
    return "" if found[0] == found[1] == found[2] else "files of two reports"


def _payload(number: int) -> bytes:
    data = np.random.default_rng(number).integers(0, 256, 20_000, np.uint8)
    return bytes(serialize(message(_TYPE, data=data), _TYPE))


def _record(storage: str) -> Callable[[Path, int, Report], None]:
    def write(bag: Path, version: int, report: Report) -> None:
        with recording(bag, storage, overwrite=True) as writer:
            writer.announce(_TOPIC, _TYPE, RELIABLE)
            for number in range(_MESSAGES):
                writer.write(_TOPIC, _TYPE, number, _payload(number))
                if number % _FLUSHED == _FLUSHED - 1:
                    writer.flush()
                    report(number + 1)

    return write


def _replayed(bag: Path, version: int, report: Report) -> None:
    with bag_output(bag, None, overwrite=True) as writer:
        writer.announce(_TOPIC, _TYPE, RELIABLE)
        for number in range(_MESSAGES):
            writer.write(_TOPIC, _TYPE, number, _payload(number))


def _bag_problem(bag: Path, least: int) -> str:
    with BagReader(bag) as reader:
        found = {m.stamp_ns: m.data for m in reader.messages(reader.topics)}
    if len(found) < least:
        return f"{len(found)} of {least} messages that were on the disk"
    return "" if all(data == _payload(number) for number, data in found.items()) else "messages of other content"


def _whole_bag_problem(bag: Path, least: int) -> str:
    return _bag_problem(bag, _MESSAGES)


WRITERS = (
    Writer("result", _result, _result_problem),
    Writer("stack", _save, _stack_problem, over_old=False),
    Writer("import", _import, _stack_problem, over_old=False),
    Writer("file", _file, _file_problem),
    Writer("cache", _kept, _kept_problem),
    Writer("cached array", _array, _array_problem),
    Writer("weights", _weights, _weights_problem),
    Writer("simulation", _simulate, _simulation_problem, over_old=False),
    Writer("capture", _capture, _captures_problem, over_old=False),
    Writer("calibration", _calibration, _calibration_problem),
    Writer("engine", _engine, _engine_problem, over_old=False),
    Writer("report", _report, _report_problem),
    Writer("replayed bag", _replayed, _whole_bag_problem),
    Writer("recording mcap", _record("mcap"), _bag_problem, records=True),
    Writer("recording sqlite3", _record("sqlite3"), _bag_problem, records=True),
)


def import_all() -> None:
    """Import what the writers import late: children that are forked afterwards share it."""
    for module in ("safetensors.torch", *(f"dfs_ros.{name}" for name in _LATE)):
        importlib.import_module(module)


def forked(act: Callable[[Report], None]) -> tuple[int, int, Callable[[], tuple[int, str]]]:
    """Run `act` in a child: its process id, a pipe of its reports, and the function that waits for it.

    That returns the status (negative: a signal) and the traceback of an exception other than those that say that the
    disk is full.
    """
    reports, report = os.pipe()
    errors, error = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(reports)
            act(partial(_tell, report))
            status = 0
        except (OSError, ValueError):
            status = 3
        except BaseException:
            os.write(error, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(status)
    os.close(report)
    os.close(error)

    def wait() -> tuple[int, str]:
        _, raw = os.waitpid(child, 0)
        with os.fdopen(errors, "rb") as told:
            return os.waitstatus_to_exitcode(raw), told.read().decode(errors="replace")

    return child, reports, wait


def started(writer: Writer, destination: Path, old: bool) -> tuple[int, int, Callable[[], tuple[int, str]]]:
    """Child that writes to `destination`, over an older content if `old`; as from :func:`forked`."""
    if old:
        _, reports, wait = forked(lambda report: writer.write(destination, 1, report))
        wait()
        last_report(reports)
    return forked(lambda report: writer.write(destination, 2, report))


def _tell(report: int, number: int) -> None:
    os.write(report, number.to_bytes(4, "little"))


def last_report(reports: int) -> int:
    """Last number that a child has reported; closes the pipe."""
    with os.fdopen(reports, "rb") as stream:
        data = stream.read()
    return int.from_bytes(data[-4:], "little") if len(data) >= 4 else 0


def what_is_wrong(writer: Writer, destination: Path, least: int, old: bool) -> str:
    """What is wrong at a destination after its writer died or failed; "" for nothing."""
    try:
        if not destination.exists():
            if old and not writer.records:
                return "the old one is gone"
            return f"{least} messages that were on the disk are gone" if least else ""
        problem = writer.problem(destination, least)
        remove_abandoned(destination.parent)
        left = [p.name for p in destination.parent.iterdir() if p.name.endswith(".part")]
        return problem or (f"{', '.join(left)} is left" if left else "")
    except Exception as error:
        with contextlib.suppress(OSError):
            if writer.records and not least and not any(p.stat().st_size > 10**5 for p in _files(destination)):
                return ""  # killed before anything was on the disk
        return f"{type(error).__name__}: {error}"


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
