"""Bags for tests: a camera on a transport that writes a bag, its clock set by the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_rig import CAMERA, MS, PLANE_M, SIZE, START_NS, plane_stack

from dfs_ros.camera.simulator import SimulatedSource
from dfs_ros.camera.source import SweepCamera
from dfs_ros.cli.main import main
from dfs_ros.config import CameraConfig
from dfs_ros.messages.compressed import compressed_message
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    COMPRESSED,
    DIAGNOSTICS,
    FOCUS,
    IMAGE,
    Diagnostic,
    camera_info_message,
    depth_from_message,
    diagnostics_message,
    focus_message,
    image_message,
)
from dfs_ros.messages.definitions import deserialize
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.transport.bag.files import BagReader
from dfs_ros.transport.bag.transport import BagTransport
from dfs_ros.transport.bag.writer import BagWriter
from dfs_ros.types import FocusMetadata, LensState

PERIOD_NS = 33 * MS
FAST = (
    "--network",
    "none",
    "--hypotheses",
    "24",
    "--min-depth",
    "0.4",
    "--max-depth",
    "4",
    "--set",
    "alignment.mode=off",
    "--set",
    "lens.aperture=given",
)


def record_simulation(folder: Path, cache: Path, storage: str = "mcap", seconds: float = 1.0) -> Path:
    """A bag of the simulated camera: /image, /camera_info, /focus, /diagnostics."""
    config = CameraConfig(width=240, height=180)
    with BagWriter(folder, storage) as writer, BagTransport("camera", writer, START_NS) as camera:
        camera.manage(SweepCamera(camera, SimulatedSource(config, cache=cache), config))
        camera.advance_to(START_NS + round(seconds * 1e9))
    return folder


def record_plane(
    folder: Path,
    *,
    sweeps: int = 2,
    storage: str = "mcap",
    image: str = "image",
    info: str = "camera_info",
    focus: str = "focus",
    form: str = "raw",
    lens_position: bool = False,
) -> Path:
    """A bag of a plane before a sweeping camera, with topics of these names; "" = without.

    `form` raw, or jpeg or png for CompressedImage; `lens_position`: focus as camera_ros' diagnostics.
    """
    stack = plane_stack()
    with BagWriter(folder, storage) as writer, BagTransport("camera", writer, START_NS) as camera:
        images = camera.create_publisher(image, IMAGE if form == "raw" else COMPRESSED) if image else None
        infos = camera.create_publisher(info, CAMERA_INFO) if info else None
        foci = camera.create_publisher(focus, FOCUS) if focus else None
        diagnostics = camera.create_publisher("/diagnostics", DIAGNOSTICS) if lens_position else None
        for number in range(sweeps * len(stack)):
            camera.advance_to(START_NS + number * PERIOD_NS)
            sweep, i = divmod(number, len(stack))
            stamp = camera.now_ns()
            metadata = FocusMetadata(
                stamp_ns=stamp,
                focus_diopters=float(stack.focus_diopters[i]),
                lens_state=LensState.STATIONARY,
                focal_length_m=CAMERA.focal_length_m,
                f_number=CAMERA.f_number,
                magnification=1.0,
                sweep_id=sweep,
                index=i,
                count=len(stack),
            )
            if infos:
                infos.publish(camera_info_message(intrinsics(CAMERA, SIZE), SIZE, stamp, "lens"))
            if foci:
                foci.publish(focus_message(metadata, "lens"))
            if diagnostics:
                position = Diagnostic("OK", "", {"LensPosition": metadata.focus_diopters})
                diagnostics.publish(diagnostics_message({"camera": position}, stamp))
            if images:
                pixels = stack.images[i]
                raw = form == "raw"
                images.publish(
                    image_message(pixels, stamp, "lens") if raw else compressed_message(pixels, stamp, "lens", form)
                )
    return folder


def messages_of(bag: Path) -> dict[str, list[Any]]:
    """All messages of a bag, decoded, by topic."""
    with BagReader(bag) as reader:
        found: dict[str, list[Any]] = {topic.name: [] for topic in reader.topics}
        for message in reader.messages(reader.topics):
            found[message.topic.name].append(deserialize(message.data, message.topic.type_name))
    return found


def dfs_replay(bag: Path, output: Path, *options: str) -> int:
    return main(["replay", str(bag), "--output", str(output), *FAST, *options])


def check_depth(bag: Path, namespace: str = "", images: int = 2) -> dict[str, list[Any]]:
    """The plane at its depth, in each stack; returns all messages."""
    found = messages_of(bag)
    depths = found[f"{namespace}/depth/image"]
    assert len(depths) == images
    for depth in depths:
        assert np.nanmedian(depth_from_message(depth)) == pytest.approx(PLANE_M, rel=0.03)
        assert np.isfinite(depth_from_message(depth)).mean() > 0.8
    return found
