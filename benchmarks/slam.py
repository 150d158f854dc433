"""Run RTAB-Map on our depth of a camera that moves through a room, and compare it with RTAB-Map on the true depth.

    python -m benchmarks.slam --speed 0.2 --output DIR

In a shell where native ROS 2, this package and RTAB-Map are sourced; `--engine pnp` does with a plain visual odometry
instead, without ROS. Steps, each kept in DIR for the next call:

recording   views of a rendered room, sharp, with depth and poses
camera      bag of the virtual focus-swept lens over them, with /tf
depth       `dfs replay` of that bag, for each source of motion: tf, and images alone
map         examples/rtabmap.launch.py on each: odometry, map, scores

True depth goes with the sharp image, at the stamps of our results. Exit status 1 if the trajectory on our depth, of any
source, is worse than twice that on the true depth. Run `guess` is `images` with the product's own velocity as the
first guess of RTAB-Map's odometry.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import slam_pnp, slam_rtabmap
from benchmarks.slam_room import frame_numbers, place, room, write_bag, write_recording
from benchmarks.slam_rtabmap import RgbdMessages
from benchmarks.slam_score import Mapped, distance_to_surfaces_m, scale_of, trajectory_error_m
from dfs_ros.camera.source import OPTICAL_IN_BODY
from dfs_ros.cli.common import add_config_arguments, config_from_arguments
from dfs_ros.config import Config
from dfs_ros.io.rgbd_folder import RgbdFolder
from dfs_ros.messages.convert import image_message
from dfs_ros.messages.definitions import Message, deserialize, stamp_ns
from dfs_ros.messages.motion import TF, transforms_from_message
from dfs_ros.node.replay import ReplayOptions, replay
from dfs_ros.transforms.rigid import Transform
from dfs_ros.transport.bag.files import BagReader

MOST_RATIO = 2.0
"""Largest ratio of the trajectory error on our depth to that on the true depth."""
SOURCES = {"tf": "auto", "images": "images"}
"""Name of each kind of run on our depth, and its `motion.source`."""
_RESULTS = ("depth/image", "all_in_focus/image", "all_in_focus/camera_info", "~/odometry")
_SWEEP = 5
"""Images of a sweep of the virtual lens."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slam", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--speed", metavar="M_S", type=float, required=True, help="speed of the camera [m/s]")
    parser.add_argument("--travel", metavar="M", type=float, default=1.5, help="length of its way [m] (default: 1.5)")
    parser.add_argument("--every", metavar="N", type=int, default=1, help="use every N-th sweep alone (default: 1)")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder of all steps")
    parser.add_argument("--engine", choices=("rtabmap", "pnp"), default="rtabmap", help="SLAM (default: rtabmap)")
    parser.add_argument("--only", metavar="RUN", nargs="+", help="runs, of true, tf, images, guess (default: all)")
    add_config_arguments(parser)
    args = parser.parse_args(argv)
    config = config_from_arguments(args)
    args.output.mkdir(parents=True, exist_ok=True)
    numbers = frame_numbers(args.speed, args.travel, args.every, _SWEEP)
    camera = _camera_bag(args.output, numbers, args.speed, args.travel, config)
    runs = args.only or ["true", *SOURCES, *(["guess"] if args.engine == "rtabmap" else [])]
    scores = {}
    for name in runs:
        depth = _depth_bag(args.output, camera, "images" if name in ("true", "guess") else name, config)
        scores[name] = _mapped(args.output, name, camera, depth, numbers, args)
        print(_row(name, scores[name]), flush=True)
    (args.output / f"scores_{args.engine}.json").write_text(json.dumps(scores, indent=1) + "\n")
    if "true" not in scores:
        return 0
    most_m = MOST_RATIO * scores["true"]["odometry_m"]
    worse = [name for name in runs if not scores[name]["odometry_m"] <= most_m]
    print(f"at most {1e3 * most_m:.1f} mm are allowed: {'missed by ' + ', '.join(worse) if worse else 'kept'}")
    return int(bool(worse))


def _camera_bag(folder: Path, numbers: list[int], speed_m_s: float, travel_m: float, config: Config) -> Path:
    bag, recording = folder / "camera", folder / "recording"
    if not (bag / "metadata.yaml").is_file():
        shutil.rmtree(bag, ignore_errors=True)
        write_recording(recording, numbers, speed_m_s, travel_m, _progress("views"))
        write_bag(recording, bag, numbers, config, _progress("virtual lens"))
    return bag


def _depth_bag(folder: Path, camera: Path, source: str, config: Config) -> Path:
    bag = folder / f"depth_{source}"
    if not (bag / "metadata.yaml").is_file():
        settings = config.updated({"motion": {"source": SOURCES[source], "odometry": True}})
        options = ReplayOptions(outputs=_RESULTS, copy="none")
        replay(camera, bag, settings, options, overwrite=True, progress=_progress(f"depth by {source}"))
    return bag


def _mapped(
    folder: Path, name: str, camera: Path, depth: Path, numbers: list[int], args: argparse.Namespace
) -> dict[str, Any]:
    """Scores of one run."""
    true = dict(_true_places(camera))
    views = {view.stamp_ns: view for view in _views(depth)}
    if name == "true":
        views = {view.stamp_ns: view for view in _true_views(folder, camera, views, numbers)}
    own = dead_reckoned(_velocities(depth), sorted(views))
    ordered = [views[stamp] for stamp in sorted(views)]
    if args.engine == "pnp":
        mapped = slam_pnp.run(ordered)
    else:
        log, guess = folder / f"rtabmap_{name}.log", own if name == "guess" else {}
        mapped = slam_rtabmap.run(ordered, log, guess, _progress(f"RTAB-Map on {name}", len(views)))
    way = np.array([each.translation_m for _, each in sorted(mapped.odometry.items())]).reshape(-1, 3)
    points, places = (_in_room(each, mapped, true, args.travel) for each in (mapped.points, way))
    true_way = np.array([true[stamp].translation_m for stamp in sorted(views)]) @ OPTICAL_IN_BODY.rotation
    np.savez_compressed(
        folder / f"map_{args.engine}_{name}.npz",
        points=points,
        colours=mapped.colours,
        places=places,
        true=true_way + place(0.0, args.travel),
    )
    return _scores(mapped, points, true, own, len(views))


def _scores(
    mapped: Mapped, points: np.ndarray, true: Mapping[int, Transform], own: Mapping[int, Transform], views: int
) -> dict[str, Any]:
    distances = distance_to_surfaces_m(points, room())
    return {
        "views": views,
        "lost": len(mapped.lost),
        "odometry_m": trajectory_error_m(mapped.odometry, true),
        "odometry_scale": scale_of(mapped.odometry, true),
        "graph_m": trajectory_error_m(mapped.path, true) if len(mapped.path) > 2 else float("nan"),
        "graph_nodes": len(mapped.path),
        "own_velocity_m": trajectory_error_m(own, true) if len(own) > 2 else float("nan"),
        "map_points": len(distances),
        "map_mean_m": float(distances.mean()) if len(distances) else float("nan"),
        "map_median_m": float(np.median(distances)) if len(distances) else float("nan"),
    }


def _row(name: str, found: Mapping[str, Any]) -> str:
    return (
        f"{name:7s} odometry {1e3 * found['odometry_m']:5.1f} mm (way {100 * found['odometry_scale'] - 100:+.1f} %, "
        f"lost {found['lost']} of {found['views']}), graph {1e3 * found['graph_m']:5.1f} mm of {found['graph_nodes']} "
        f"nodes, map {1e3 * found['map_mean_m']:5.1f} mm (median {1e3 * found['map_median_m']:.1f}) of "
        f"{found['map_points']} points; own velocity alone {1e3 * found['own_velocity_m']:.1f} mm"
    )


def dead_reckoned(velocities: Mapping[int, np.ndarray], stamps: Sequence[int]) -> dict[int, Transform]:
    """Places of the body by the velocities (3,) of its optical frame alone, from the first of `stamps` on.

    Between two stamps the mean of their velocities counts; a missing one is that of the last sweep that had one.
    """
    if not velocities:
        return {}
    known = sorted(velocities)
    components = [np.interp(stamps, known, [velocities[stamp][axis] for stamp in known]) for axis in range(3)]
    speed = np.stack(components, axis=-1)
    seconds = np.diff(stamps)[:, None] * 1e-9
    way = np.concatenate([np.zeros((1, 3)), np.cumsum(0.5 * (speed[1:] + speed[:-1]) * seconds, axis=0)])
    return {
        stamp: Transform(np.eye(3), OPTICAL_IN_BODY.rotation @ each) for stamp, each in zip(stamps, way, strict=True)
    }


def _in_room(points: np.ndarray, mapped: Mapped, true: Mapping[int, Transform], travel_m: float) -> np.ndarray:
    """Points (N, 3) of a map in the coordinates of the room: the map begins at the first place of the odometry."""
    if not mapped.odometry:
        return np.zeros((0, 3))
    start = min(mapped.odometry)
    body = true[start].after(mapped.odometry[start].inverse())
    optical = OPTICAL_IN_BODY.inverse().after(body)
    return points @ optical.rotation.T + optical.translation_m + place(0.0, travel_m)


def _true_places(camera: Path) -> Iterator[tuple[int, Transform]]:
    """Places of the body in the frame of its start, by stamp."""
    for msg in _messages(camera, "/tf").values():
        for each in transforms_from_message(msg)[0]:
            yield each.stamp_ns, each.transform


def _views(depth: Path) -> Iterator[RgbdMessages]:
    names = ("/all_in_focus/image", "/all_in_focus/camera_info", "/depth/image")
    topics = [_messages(depth, name) for name in names]
    for stamp in sorted(set.intersection(*(set(topic) for topic in topics))):
        yield RgbdMessages(stamp, *(topic[stamp] for topic in topics))


def _true_views(
    folder: Path, camera: Path, results: Mapping[int, RgbdMessages], numbers: list[int]
) -> Iterator[RgbdMessages]:
    """Sharp image and true depth at the stamps of our results."""
    recording, truths, infos = RgbdFolder(folder / "recording"), *(_messages(camera, t) for t in _TRUE)
    if len(truths) != len(numbers):
        raise ValueError(f"{camera}: expected {len(numbers)} images, received {len(truths)}; remove the folder")
    view_of = {stamp: i for i, stamp in enumerate(sorted(truths))}
    for stamp in results:
        rgb = recording.view(view_of[stamp]).rgb
        image = image_message(rgb, stamp, str(truths[stamp].header.frame_id))
        yield RgbdMessages(stamp, image, infos[stamp], truths[stamp])


_TRUE = ("/true_depth/image", "/camera_info")


def _velocities(depth: Path) -> dict[int, np.ndarray]:
    found = {}
    for stamp, msg in _messages(depth, "/dfs/odometry").items():
        linear = msg.twist.twist.linear
        found[stamp] = np.array([linear.x, linear.y, linear.z])
    return found


def _messages(bag: Path, name: str) -> dict[int, Message]:
    """Messages of a topic by the stamp of their header; those of /tf by the time of reception."""
    with BagReader(bag) as reader:
        found = {}
        for recorded in reader.messages([topic for topic in reader.topics if topic.name == name]):
            msg = deserialize(recorded.data, recorded.topic.type_name)
            found[recorded.stamp_ns if recorded.topic.type_name == TF else stamp_ns(msg.header.stamp)] = msg
    return found


def _progress(what: str, count: int = 0) -> Callable[[float], None]:
    """Print each tenth of the work, given as a share, or as a number of `count`."""
    told = [-1]

    def show(done: float) -> None:
        tenth = int(10 * (done / count if count else done))
        if tenth > told[0]:
            told[0] = tenth
            print(f"{what}: {10 * tenth} %", file=sys.stderr, flush=True)

    return show


if __name__ == "__main__":
    sys.exit(main())
