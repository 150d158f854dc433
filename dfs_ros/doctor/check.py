"""Trial: depth of a small stack, and a node; both show the parts used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dfs_ros.doctor.finding import Finding, Use, installed, version, words
from dfs_ros.system.tracebacks import keep_traceback

if TYPE_CHECKING:
    from dfs_ros.network import Network

DEPTH_M = 0.8
TOLERANCE = 0.05
_TRANSPORTS = {
    "ros": ("native ROS 2", "rclpy and dfs_ros.msg can be imported"),
    "dds": ("ROS 2 by DDS, without ROS 2", "rclpy or dfs_ros.msg cannot be imported"),
}


def models() -> Iterator[Finding]:
    """Trained networks."""
    from dfs_ros.config import NetworkConfig
    from dfs_ros.network.weights import known_models

    found, wanted = known_models(), NetworkConfig().name
    text = ", ".join(found) or "none"
    if wanted in ("none", *found):
        yield Finding("models and viewer", "models", text)
    else:
        fix = f"the default network '{wanted}' is missing: install dfs_ros again, or --set network.name=none"
        yield Finding("models and viewer", "models", text, "error", fix)


def viewer() -> Iterator[Finding]:
    """Viewer page."""
    if installed("viser"):
        yield Finding("models and viewer", "viser", version("viser") or "installed")
    else:
        text = "not installed: no page in the browser; `dfs run --no-viewer` works"
        yield Finding("models and viewer", "viser", text, "warning", "pip install viser")


def estimate(uses: list[Use]) -> Iterator[Finding]:
    """Render a plane, and estimate its depth with the default settings."""
    name = "depth of a rendered plane"
    try:
        depth_m, report, network = _estimate_plane()
    except Exception as error:
        keep_traceback(error)
        yield Finding("check", name, f"fails: {words(error)}", "error", "mend what is marked above")
        return
    ran_on = report["ran_on"]
    uses.append(Use("cost volume", ran_on["cost volume"], _why(ran_on["cost volume"])))
    uses.append(Use("network", ran_on["network"], _why_network(network)))
    text = f"{depth_m:.3f} m, true are {DEPTH_M} m ({report['seconds']['total']:.2f} s for 5 images of 128 x 96)"
    if abs(depth_m / DEPTH_M - 1) <= TOLERANCE:
        yield Finding("check", name, text)
    else:
        fix = "this cannot be: install dfs_ros again, and report it with the output of `dfs doctor --json`"
        yield Finding("check", name, text, "error", fix)


def _estimate_plane() -> tuple[float, dict[str, Any], Network | None]:
    import numpy as np

    from dfs_ros.estimator.estimator import DepthEstimator
    from dfs_ros.simulation.render import render_stack
    from dfs_ros.simulation.scenes import plane_scene
    from dfs_ros.types import Camera

    scene = plane_scene(DEPTH_M, 128, 96)
    stack = render_stack(scene.rgb, scene.depth_m, Camera(0.008, 1.4, 6e-6), (2.2, 1.7, 1.3, 0.9, 0.5))
    estimator = DepthEstimator()
    result = estimator.estimate(stack)
    return float(np.nanmedian(result.depth_m)), result.report, estimator.loaded_network


def _why(cost_volume: str) -> str:
    from dfs_ros.cost_volume import cuda

    return cuda.why_not() or ("CUDA can be used" if "cuda" in cost_volume else "its kernels cannot be had, see the log")


def _why_network(network: Network | None) -> str:
    """Chain of runners, with the fault of each that does not run."""
    from dfs_ros.cost_volume import cuda

    if network is None:
        return "the default"
    lacking = ["what needs a GPU is left out, as there is none to use"] if cuda.why_not() else []
    lacking += [fault.text for fault in network.faults]
    return "; ".join([f"the chain is {' -> '.join(network.chain)}", *lacking])


def open_node(uses: list[Use]) -> Iterator[Finding]:
    """Open a node on the transport that `auto` stands for, and close it."""
    try:
        from dfs_ros.transport import chosen_kind, open_transport

        choice, why = _TRANSPORTS[chosen_kind("auto")]
        open_transport("auto", "dfs_doctor").shutdown()
    except Exception as error:
        keep_traceback(error)
        fix = (
            "install cyclonedds and rosbags, or source ROS 2; `dfs run --transport local` does without, in one process"
        )
        yield Finding("check", "transport", " ".join(str(error).split()), "error", fix)
        return
    uses.append(Use("transport", choice, why))
    yield Finding("check", "transport", f"{choice}: a node opens and closes")
