"""Room for SLAM, a camera that moves through it, and the bag of a virtual lens that it looks through.

The camera moves sideways at a steady speed, and less up, down and forward; it does not turn. Its views are written as a
recording of colour, depth and poses (ScanNet's layout), which the package's virtual lens plays like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.camera.source import SweepCamera
from dfs_ros.camera.virtual_lens import RecordedRgbd
from dfs_ros.config import Config
from dfs_ros.simulation import textures
from dfs_ros.simulation.render import encode_uint8
from dfs_ros.simulation.surfaces import Cylinder, Material, Rectangle, Sphere, Surface, box, cast
from dfs_ros.transport.bag.transport import BagTransport
from dfs_ros.transport.bag.writer import BagWriter

WIDTH, HEIGHT, FX_PX = 320, 240, 262.5
START_Z_M = 0.45
RATE_HZ = 30.0
DEPTH_UNIT_M = 1e-4
START_NS = 10**18
_SEED = 7


@lru_cache(maxsize=1)
def room() -> tuple[Surface, ...]:
    """Walls, floor and furniture, 0.7 to 2.6 m before the camera on its way."""
    rng = np.random.default_rng(_SEED)

    def facing(x: float, y: float, depth: float, width_m: float, height_m: float, material: Material) -> Rectangle:
        return Rectangle((x, y, depth), (width_m / 2, 0.0, 0.0), (0.0, height_m / 2, 0.0), material)

    wood, bricks = textures.wood(rng, 512), textures.bricks(rng, 512)
    floor_m, ceiling_m, far_m, left_m, right_m = 0.9, -1.5, 3.0, -1.9, 2.1
    across, height, middle = (right_m - left_m) / 2, (floor_m - ceiling_m) / 2, (floor_m + ceiling_m) / 2
    centre = (left_m + right_m) / 2
    shell: list[Surface] = [
        facing(centre, middle, far_m, 2 * across, 2 * height, Material(bricks, 0.9)),
        Rectangle((centre, floor_m, 1.0), (across, 0.0, 0.0), (0.0, 0.0, 2.0), Material(wood, 0.6)),
        Rectangle((centre, ceiling_m, 1.0), (across, 0.0, 0.0), (0.0, 0.0, 2.0), Material(textures.clouds(rng), 0.8)),
        Rectangle((left_m, middle, 1.0), (0.0, 0.0, 2.0), (0.0, height, 0.0), Material(textures.blobs(rng), 0.7)),
        Rectangle((right_m, middle, 1.0), (0.0, 0.0, 2.0), (0.0, height, 0.0), Material(textures.clouds(rng), 0.7)),
    ]
    table_m = 0.34
    furniture: list[Surface] = [
        *box((-0.1, table_m + 0.02, 1.55), (1.6, 0.04, 0.7), 0.0, Material(wood, 0.5)),
        *box((-0.6, table_m - 0.11, 1.5), (0.22, 0.22, 0.2), 0.5, Material(textures.writing(rng), 0.2)),
        *box((0.35, table_m - 0.08, 1.35), (0.26, 0.16, 0.16), -0.4, Material(textures.checker(rng), 0.2)),
        *box((1.15, 0.5, 2.2), (0.5, 0.8, 0.4), 0.3, Material(textures.blobs(rng), 0.4)),
        *box((-1.35, 0.3, 2.5), (0.6, 1.2, 0.4), 0.15, Material(textures.stripes(rng), 0.5)),
        Sphere((-0.15, table_m - 0.09, 1.3), 0.09, Material(textures.blobs(rng), 0.2)),
        Cylinder((0.05, table_m - 0.14, 1.7), 0.06, 0.28, Material(textures.writing(rng), 0.2)),
        Cylinder((0.75, -0.3, 1.9), 0.05, 2.4, Material(textures.bricks(rng), 0.3)),
        facing(-0.65, -0.55, 2.97, 0.8, 0.6, Material(textures.writing(rng), 0.5)),
        facing(0.35, -0.5, 2.97, 0.6, 0.75, Material(textures.blobs(rng), 0.5)),
        facing(1.35, -0.45, 2.97, 0.7, 0.5, Material(textures.checker(rng), 0.6)),
    ]
    return (*shell, *furniture)


def place(distance_m: float, travel_m: float) -> NDArray[np.float64]:
    """Place (3,) of the camera in the room after `distance_m` of its way, in metres."""
    share = 2 * math.pi * distance_m / max(travel_m, 1e-9)
    return np.array([distance_m - travel_m / 2, 0.03 * math.sin(share), START_Z_M + 0.04 * math.sin(share / 2)])


def view(distance_m: float, travel_m: float) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Sharp image (H, W, 3) and depth (H, W) in metres."""
    seen = cast(room(), WIDTH, HEIGHT, FX_PX, place(distance_m, travel_m), samples=1)
    return encode_uint8(seen.rgb_linear), seen.depth_m


def frame_numbers(speed_m_s: float, travel_m: float, every: int, sweep: int) -> list[int]:
    """Numbers, at `RATE_HZ`, of the images of every `every`-th sweep of `sweep` images on the way."""
    count = round(travel_m / speed_m_s * RATE_HZ) + 1
    return [i for i in range(count) if (i // sweep) % every == 0 and i - i % sweep + sweep <= count]


def write_recording(
    folder: Path, numbers: list[int], speed_m_s: float, travel_m: float, progress: Callable[[float], None]
) -> None:
    """Write views of one way as a ScanNet folder, those at `numbers` of the images."""
    for name in ("color", "depth", "pose", "intrinsic"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    k = np.array([[FX_PX, 0, (WIDTH - 1) / 2, 0], [0, FX_PX, (HEIGHT - 1) / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    np.savetxt(folder / "intrinsic" / "intrinsic_depth.txt", k)
    for done, number in enumerate(numbers, start=1):
        _write_view(folder, speed_m_s, travel_m, number)
        progress(done / len(numbers))


def _write_view(folder: Path, speed_m_s: float, travel_m: float, number: int) -> None:
    distance_m = number * speed_m_s / RATE_HZ
    if (folder / "pose" / f"{number}.txt").is_file():
        return
    rgb, depth_m = view(distance_m, travel_m)
    cv2.imwrite(str(folder / "color" / f"{number}.png"), rgb[..., ::-1])
    cv2.imwrite(str(folder / "depth" / f"{number}.png"), np.rint(depth_m / DEPTH_UNIT_M).astype(np.uint16))
    pose = np.eye(4)
    pose[:3, 3] = place(distance_m, travel_m)
    np.savetxt(folder / "pose" / f"{number}.txt", pose)


def lens_settings(folder: Path, config: Config) -> Config:
    """Settings of the virtual lens over a recording of this room."""
    camera = {"source": "rgbd", "rate_hz": RATE_HZ}
    return config.updated({"camera": camera, "rgbd": {"path": str(folder), "depth_unit_m": DEPTH_UNIT_M}})


def write_bag(
    recording: Path, bag: Path, numbers: list[int], config: Config, progress: Callable[[float], None]
) -> None:
    """Write what the focus-swept camera publishes of one way: images, focus, camera_info, true depth and /tf."""
    settings = lens_settings(recording, config)
    with BagWriter(bag, "mcap") as writer, BagTransport("camera", writer, START_NS, config=settings) as transport:
        camera = SweepCamera(transport, RecordedRgbd(settings), settings.camera)
        for done, number in enumerate(numbers, start=1):
            transport.advance_to(stamp_of(number))
            camera.send()
            progress(done / len(numbers))
        camera.close()


def stamp_of(number: int) -> int:
    """Stamp of an image by its number."""
    return START_NS + number * round(1e9 / RATE_HZ)
