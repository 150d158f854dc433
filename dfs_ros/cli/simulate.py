"""Render a focal stack of a scene of known depth through a thin lens.

Output: a focal-stack/1 folder (stack.yaml and images), the true depth as true_depth.npy (float32 metres) and
true_depth.png, and the sharp scene as scene.png. With --breathing the true depth has the image scale of infinity focus.
"""

from __future__ import annotations

import argparse

from dfs_ros.cli.participants import size_argument
from dfs_ros.config import Config, SimulationConfig
from dfs_ros.types import Camera

_SENSOR_WIDTH_M = 12.8e-3
_OVERSAMPLING = 2
SAMPLE: tuple[str, ...] = ("--scene", "demo")
"""Options of the sample."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = SimulationConfig()
    parser.add_argument("--output", metavar="DIR", required=True, help="new folder for the stack")
    parser.add_argument(
        "--scene",
        choices=("demo", "plane", "random"),
        default="demo",
        help="scene: demo, one frontal plane, or random objects (default: %(default)s)",
    )
    parser.add_argument(
        "--size", metavar="WxH", type=size_argument, default=(320, 240), help="image size (default: 320x240)"
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, default=0, help="random seed of scene and noise (default: %(default)s)"
    )
    parser.add_argument(
        "--depth",
        metavar="M",
        type=float,
        default=1.0,
        help="depth of the plane (--scene plane) [m] (default: %(default)g)",
    )
    parser.add_argument(
        "--near",
        metavar="M",
        type=float,
        default=0.4,
        help="nearest depth (--scene random) [m] (default: %(default)g)",
    )
    parser.add_argument(
        "--far",
        metavar="M",
        type=float,
        default=4.0,
        help="farthest depth (--scene random) [m] (default: %(default)g)",
    )
    parser.add_argument(
        "--noise",
        metavar="SHARE",
        type=float,
        default=default.noise,
        help="standard deviation of the image noise, as a fraction of full scale (default: %(default)g)",
    )
    parser.add_argument(
        "--breathing", action="store_true", help="simulate focus breathing: image scale grows with nearer focus"
    )
    group = parser.add_argument_group("camera (default: 25 mm f/1.4, sensor 12.8 mm wide)")
    group.add_argument(
        "--focal-length-mm", metavar="MM", type=float, default=25.0, help="focal length [mm] (default: %(default)g)"
    )
    group.add_argument("--f-number", metavar="N", type=float, default=1.4, help="f-number (default: %(default)g)")
    group.add_argument(
        "--pixel-pitch-um",
        metavar="UM",
        type=float,
        help="pixel pitch on the sensor [um] (default: 12800 / width)",
    )
    group.add_argument(
        "--focus",
        metavar="D,D,...",
        help="focus of each image in dioptres, 0: infinity (default: 2.2,1.6,1.1,0.7,0.35)",
    )


def run(args: argparse.Namespace) -> int:
    print(f"{rendered(args)}; next: dfs estimate {args.output} --output DIR")
    return 0


def write_sample(folder: str) -> None:
    """Write the stack of `dfs estimate --sample`."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    rendered(parser.parse_args(["--output", folder, *SAMPLE]))


def rendered(args: argparse.Namespace) -> str:
    """Write the stack of the options; return a line of text on it."""
    import numpy as np

    from dfs_ros.io.pictures import depth_picture
    from dfs_ros.io.stack_folder import save_stack
    from dfs_ros.simulation.render import render_stack
    from dfs_ros.simulation.scenes import DEMO_FOCUS_DIOPTERS, Scene, demo_scene, plane_scene, random_scene
    from dfs_ros.system.atomic import prepare_output

    settings = Config.from_dict({"simulation": {"noise": args.noise, "breathing": args.breathing}}).simulation
    width, height = args.size
    if min(args.size) < 16:
        raise ValueError(f"--size: expected at least 16x16, received {width}x{height}")
    pitch_m = _SENSOR_WIDTH_M / width if args.pixel_pitch_um is None else args.pixel_pitch_um * 1e-6
    camera = Camera(args.focal_length_mm * 1e-3, args.f_number, pitch_m)
    focus = DEMO_FOCUS_DIOPTERS if args.focus is None else _numbers(args.focus)
    if not (np.isfinite(args.depth) and args.depth > 0):
        raise ValueError(f"--depth: expected metres over 0, received {args.depth:g}")
    folder = prepare_output(args.output)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"--output {folder}: expected a new or empty folder, received one with files in it")

    # A finer scene gives exact blur and smooth edges.
    size = (width * _OVERSAMPLING, height * _OVERSAMPLING)
    fx_px = _OVERSAMPLING * camera.focal_length_m / camera.pixel_pitch_m
    scene: Scene
    if args.scene == "demo":
        scene = demo_scene(*size, fx_px=fx_px)
    elif args.scene == "plane":
        scene = plane_scene(args.depth, *size, seed=args.seed, fx_px=fx_px)
    else:
        scene = random_scene(args.seed, *size, near_m=args.near, far_m=args.far, fx_px=fx_px)
    stack = render_stack(
        scene.rgb,
        scene.depth_m,
        camera,
        focus,
        oversampling=_OVERSAMPLING,
        rng=args.seed,
        noise=settings.noise,
        breathing=settings.breathing,
    )
    seen = scene.reduced(_OVERSAMPLING)
    breathing = "breathing" if args.breathing else "no breathing"
    note = f"Rendered: scene {args.scene}, seed {args.seed}, noise {args.noise:g}, {breathing}."
    pictures = {"true_depth.png": depth_picture(seen.depth_m, "True depth"), "scene.png": seen.rgb}
    save_stack(stack, folder, note, seen.depth_m, "true_depth.npy", pictures)
    return (
        f"{args.output}: {len(stack)} images of {width} x {height}, depth {seen.depth_m.min():.3g} to "
        f"{seen.depth_m.max():.3g} m"
    )


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--focus: expected dioptres such as 2.2,1.1,0.35, received {text!r}") from error
