"""Damaged inputs of every reader: flipped, cut, repeated and junk bytes, and odd values in text.

A fault is an exception other than those that a command tells in one sentence, a signal, over 2 GiB of memory, over 30
seconds, or content that its checksum should have refused. Readers run in child processes, a batch at a time.
"""

from __future__ import annotations

import dataclasses
import os
import random
import resource
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from benchmarks.faults.parts import Options, Row, told
from benchmarks.faults.writers import import_all
from dfs_ros.camera.camera_file import load_camera_file
from dfs_ros.config import Config
from dfs_ros.io.exif import read_exif
from dfs_ros.io.images import ImageFile, write_png
from dfs_ros.io.importing import import_folder
from dfs_ros.io.stack_description import read_description
from dfs_ros.io.stack_folder import load_stack, read_reference_depth, save_stack
from dfs_ros.lens.table import LensTable
from dfs_ros.messages.definitions import message, serialize
from dfs_ros.network.onnx_file import read_onnx
from dfs_ros.network.runners.engine_cache import EngineCache, EngineKey
from dfs_ros.system.cache import keep, keep_array, read_array, read_kept
from dfs_ros.transport.bag.files import BagReader
from dfs_ros.transport.bag.recording import recording
from dfs_ros.transport.base import RELIABLE
from dfs_ros.types import Camera, FocalStack

_COUNT = 2000
_MESSAGES = 8
_TYPE = "std_msgs/msg/UInt8MultiArray"
_ENGINE = EngineKey("0", "trt", "1", "gpu", "9.0", "12", "5", "fp16", "1x1", "")
_BATCH = 500
_MEMORY = Path("/dev/shm")  # sync costs nothing there
_LONGEST_S = 30
_MOST_BYTES = 2 << 30
_STRETCHED = 0.02
"""Share of the files that are made far longer than memory may be, without blocks on the disk."""
_EXPECTED = (ValueError, TypeError, OSError)  # `dfs` tells them in one sentence
_JUNK = (
    *(b"!!bool x", b"!!int ''", b"!!timestamp x", b"!!python/object/apply:os.abort []", b".inf", b"-.inf", b".nan"),
    *(b"null", b"[]", b"{}", b"''", b'"', b"&a [*a]", b"*a", b"9" * 5000, b"-1", b"0", b"1e999", b"\0", b"\xff\xfe"),
    *(b"[" * 3000, b"../../etc/passwd", b"true", b"2024-13-45", b"\n", b"a: b: c", b"\xf0\x9f\x98\x80"),
)


class Reader(NamedTuple):
    """`read(folder)` reads what lies in a folder, of which `file` is damaged."""

    name: str
    file: str
    read: Callable[[Path], object]
    share: float = 1.0
    """Of the cases, as a multiple of other readers': slow ones have fewer."""


def run(options: Options) -> list[Row]:
    """One row a reader."""
    random_ = random.Random(options.seed)
    count = options.count or _COUNT
    rows = []
    import_all()
    place = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="dfs_faults_", dir=place) as made:
        good = Path(made) / "good"
        good.mkdir()
        readers = _readers(good)
        for reader in readers:
            reader.read(good)  # undamaged, it must be taken; imports what the children share
            shutil.rmtree(good / "new", ignore_errors=True)
        whole = sum(reader.share for reader in readers)
        given = 0.0
        for reader in readers:
            before, given = round(given), given + count * reader.share / whole
            share = round(given) - before
            rows.append(_fuzzed(reader, share, good, Path(made) / "bad", random_.randrange(1 << 30), options))
            told(rows[-1])
    return rows


def _readers(good: Path) -> list[Reader]:
    """Readers, with their undamaged inputs in `good`."""
    from dfs_ros.network.light import LightArchitecture, LightNetwork
    from dfs_ros.network.weights import model_file, save_network

    small = LightArchitecture((2, 2, 2, 2), 2)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), np.uint8)
    stack = FocalStack(images, np.array([2.0, 1.0]), Camera(0.004, 2.0, 4e-6))
    save_stack(stack, good / "stack", "", np.full((16, 24), 1.0, np.float32), "true_depth.npy")
    keep(good / "kept", images.tobytes())
    keep_array(good / "array.npy", images[0, ..., 0])
    save_network(good / "w.safetensors", LightNetwork(small).state_dict(), small, {"epochs": 3})
    for storage in ("mcap", "sqlite3"):
        with recording(good / storage, storage) as writer:
            writer.announce("/data", _TYPE, RELIABLE)
            for number in range(_MESSAGES):
                writer.write("/data", _TYPE, number, _payload(number))
    shutil.copy(model_file("light").with_name("light-dynamic-fp16.onnx"), good / "n.onnx")
    (good / "engines").mkdir()
    EngineCache(good / "engines").write(_ENGINE, b"plan" * 100, {"difference": 0.0})
    photos = good / "photos"
    photos.mkdir()
    for i in range(3):
        write_png(photos / f"{i}.png", np.random.default_rng(i).integers(0, 256, (32, 48, 3), np.uint8))
    _write_jpeg(photos / "4.jpg")
    (photos / "focus.csv").write_text('file,focus_diopters\n0.png,2.0\n"1.png",1.0\n2.png,0.5\n')
    (good / "config.yaml").write_text(yaml.safe_dump(Config().to_dict()))
    points = [{"raw": raw, "focus_diopters": raw / 50.0, "sigma_diopters": 0.1} for raw in (0, 100, 250)]
    (good / "lens.yaml").write_text(yaml.safe_dump({"format": "lens-table/1", "points": points}))
    matrix = {"rows": 3, "cols": 3, "data": [500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0]}
    camera = {"image_width": 640, "image_height": 480, "camera_matrix": matrix, "distortion_model": "plumb_bob"}
    (good / "camera.yaml").write_text(yaml.safe_dump(camera))
    lens: Any = {"focal_length_m": 0.004, "f_number": 2.0, "pixel_pitch_m": 4e-6}

    def bag(name: str) -> Callable[[Path], object]:
        return lambda folder: _replay(folder / name)

    description = read_description(good / "stack")
    return [
        Reader("stack.yaml", "stack/stack.yaml", lambda folder: read_description(folder / "stack")),
        Reader("image", "stack/001.png", lambda folder: _image(folder / "stack" / "001.png")),
        Reader("stack", "stack/000.png", lambda folder: load_stack(folder / "stack"), 0.3),
        Reader("jpeg and exif", "photos/4.jpg", lambda folder: read_exif(folder / "photos" / "4.jpg", 50)),
        Reader(
            "reference depth",
            "stack/true_depth.npy",
            lambda folder: read_reference_depth(dataclasses.replace(description, folder=folder / "stack")),
        ),
        Reader(
            "csv",
            "photos/focus.csv",
            lambda folder: import_folder(folder / "photos", folder / "new", folder / "photos" / "focus.csv", **lens),
        ),
        Reader("settings", "config.yaml", lambda folder: Config.load(folder / "config.yaml"), 0.3),
        Reader("lens table", "lens.yaml", lambda folder: LensTable.load(folder / "lens.yaml")),
        Reader("camera file", "camera.yaml", lambda folder: load_camera_file(folder / "camera.yaml")),
        Reader("bag mcap", "mcap/mcap.mcap", bag("mcap/mcap.mcap")),
        Reader("bag sqlite3", "sqlite3/sqlite3.db3", bag("sqlite3/sqlite3.db3")),
        Reader("bag metadata", "mcap/metadata.yaml", bag("mcap"), 0.1),
        Reader("weights", "w.safetensors", lambda folder: _weights(folder / "w.safetensors")),
        Reader("onnx", "n.onnx", lambda folder: read_onnx(folder / "n.onnx", 1 << 20), 0.3),
        Reader("cache", "kept", lambda folder: read_kept(folder / "kept")),
        Reader(
            "engine", f"engines/{_ENGINE.digest()}.json", lambda folder: EngineCache(folder / "engines").read(_ENGINE)
        ),
        Reader("cached array", "array.npy", lambda folder: read_array(folder / "array.npy", (16, 24), np.uint8)),
    ]


def _write_jpeg(file: Path) -> None:
    from PIL import Image

    image = Image.fromarray(np.random.default_rng(4).integers(0, 256, (32, 48, 3), np.uint8))
    exif = image.getexif()
    exif.get_ifd(0x8769).update({0x9206: 1.5, 0x920A: 4.0, 0x829D: 2.0, 0xA405: 28})
    image.save(file, exif=exif)


def _weights(file: Path) -> None:
    from dfs_ros.network.weights import load_weights, sigma_scale_of, training_facts

    sigma_scale_of(file)
    training_facts(file)
    load_weights(file)


def _payload(number: int) -> bytes:
    return bytes(serialize(message(_TYPE, data=np.full(200, number, np.uint8)), _TYPE))


def _image(file: Path) -> None:
    with ImageFile(file) as image:
        image.pixels()


def _replay(bag: Path) -> None:
    with BagReader(bag) as reader:
        for found in reader.messages(reader.topics):
            if found.data != _payload(found.stamp_ns):
                raise RuntimeError("a message of other content is taken")


def _fuzzed(reader: Reader, count: int, good: Path, bad: Path, seed: int, options: Options) -> Row:
    tried = broke = 0
    note = ""
    while tried < count and not options.time_is_over:
        first, last = tried, min(tried + _BATCH, count)
        reports, report = os.pipe()
        child = os.fork()
        if not child:
            try:
                _batch(reader, good, bad, seed, range(first, last), report)
            finally:
                os._exit(1)
        os.close(report)
        with os.fdopen(reports, "rb") as stream:
            told = stream.read().decode(errors="replace")
        _, raw = os.waitpid(child, 0)
        shutil.rmtree(bad, ignore_errors=True)
        lines = told.splitlines()
        tried = first + sum(line == "tried" for line in lines)
        faults = [line for line in lines if line != "tried"]
        status = os.waitstatus_to_exitcode(raw)
        if status:
            faults.append(f"case {tried}: status {status}, {'over 30 s' if status == -signal.SIGALRM else 'ended'}")
            tried += 1
        broke += len(faults)
        note = note or (faults[0] if faults else "")
    return Row(f"fuzz: {reader.name}", tried, broke, note)


def _batch(reader: Reader, good: Path, bad: Path, seed: int, cases: range, report: int) -> None:
    """Read damaged inputs in a child process, and report each."""
    logging_off()
    shutil.copytree(good, bad)
    content = (good / reader.file).read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in cases:
        random_ = random.Random(f"{seed} {case}")
        damaged, what = _damaged(content, random_)
        (bad / reader.file).write_bytes(damaged)
        if random_.random() < _STRETCHED:
            os.truncate(bad / reader.file, 2 * _MOST_BYTES)
            what += ", stretched with a hole"
        signal.alarm(_LONGEST_S)
        problem = ""
        try:
            reader.read(bad)
        except _EXPECTED:
            pass
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        signal.alarm(0)
        shutil.rmtree(bad / "new", ignore_errors=True)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        if grown > _MOST_BYTES and not problem:
            problem, before = f"{grown / 1e9:.1f} GB", before + (grown >> 10)
        if problem:
            os.write(report, f"case {case}, {what}: {' '.join(problem.split())[:300]}\n".encode())
        os.write(report, b"tried\n")
    os._exit(0)


def logging_off() -> None:
    """Drop log messages: each damaged cache warns."""
    import logging

    logging.disable(logging.CRITICAL)


def _damaged(content: bytes, random_: random.Random) -> tuple[bytes, str]:
    # Headers are short and at an end, and matter most.
    at = random_.choice(
        [random_.randrange(len(content)), random_.randrange(min(200, len(content))), -random_.randrange(1, 200)]
    )
    at = max(0, at % len(content))
    kind = random_.choice(("flipped", "cut", "repeated", "zeros", "ones", "junk", "words"))
    if kind == "flipped":
        return content[:at] + bytes([content[at] ^ 1 << random_.randrange(8)]) + content[
            at + 1 :
        ], f"bit of {at} flipped"
    if kind == "cut":
        return content[:at], f"cut at {at}"
    if kind == "repeated":
        return content[:at] + content[max(0, at - random_.randrange(1, 500)) :], f"repeated before {at}"
    if kind in ("zeros", "ones"):
        length = random_.choice((1, 4, 8, 4096))
        return content[:at] + (b"\0" if kind == "zeros" else b"\xff") * length + content[
            at + length :
        ], f"{kind} at {at}"
    if kind == "junk":
        junk = random_.choice(_JUNK)
        return content[:at] + junk + content[at + random_.randrange(len(junk) + 1) :], f"{junk[:20]!r} at {at}"
    junk = random_.choice(_JUNK)  # in the place of a value of text
    start = content.rfind(b": ", 0, at) + 2
    end = content.find(b"\n", start)
    return content[:start] + junk + content[end if end > 0 else start :], f"{junk[:20]!r} as the value at {start}"
