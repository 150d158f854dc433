"""Time from aligned stack to depth on the CPU: light network beside full-size DDFS.

Each has its own volume. The weights of DDFS are random, as they do not change its time. Both run alternately in one
process, so that other load affects both; the best time of each counts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed import SpeedCase, synthetic_stack
from dfs_research.baselines.ddfs import DdfsArchitecture, DdfsNetwork, expected_depth
from dfs_research.evaluation.predictors import ddfs_inputs
from dfs_research.experiments.training import Say
from dfs_ros.config import Config
from dfs_ros.cost_volume.hypotheses import depth_hypotheses
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.io.markdown import markdown_table
from dfs_ros.system.cores import usable_cores
from dfs_ros.system.memory import keep_freed_memory
from dfs_ros.types import FocalStack

NETWORK_STEPS = ("cost volume", "aggregate", "decide")
"""Steps of the estimator: volume, inputs of the network, network and readout."""
_NEAR_M, _FAR_M = 0.1, 3.0


@dataclass(frozen=True)
class Times:
    """Seconds of the fastest round: light by step, DDFS's volume and network."""

    light: dict[str, float]
    ddfs_volume: float
    ddfs_network: float
    ddfs_parameters: int

    @property
    def light_network_s(self) -> float:
        """Time of the light network from volume to depth."""
        return sum(self.light[step] for step in NETWORK_STEPS)

    @property
    def ddfs_s(self) -> float:
        """Time of DDFS from volume to depth."""
        return self.ddfs_volume + self.ddfs_network


def measure(case: SpeedCase, rounds: int, say: Say, width: float = 1.0) -> Times:
    """Time both on the same stack, `rounds` times after a warm-up.

    `width`: factor on DDFS's channels, 1 = its authors'.
    """
    keep_freed_memory()  # as in the node; DDFS gains by it too
    stack, _ = synthetic_stack(case)
    hypotheses = {"min_depth_m": _NEAR_M, "max_depth_m": _FAR_M, "count": case.hypotheses}
    config = Config.from_dict({"hypotheses": hypotheses, "alignment": {"mode": "off"}, "processing": {"device": "cpu"}})
    estimator = DepthEstimator(config)
    torch.manual_seed(0)
    network = DdfsNetwork(DdfsArchitecture(case.hypotheses, "released", width)).eval()
    depths_m = depth_hypotheses(_NEAR_M, _FAR_M, case.hypotheses)
    light, ddfs = [], []
    for index in range(rounds + 1):
        light.append(dict(estimator.estimate(stack, sharpen=False).report["seconds"]))
        ddfs.append(_ddfs_seconds(network, stack, depths_m))
        say(f"speed: {'warm-up' if index == 0 else f'round {index} of {rounds}'}")
    fastest = min(light[1:], key=lambda seconds: sum(seconds[step] for step in NETWORK_STEPS))
    volume_s, network_s = min(ddfs[1:], key=sum)
    return Times(fastest, volume_s, network_s, sum(p.numel() for p in network.parameters()))


def markdown(times: Times) -> str:
    """Markdown table of both by step, and their ratio."""
    rows: list[list[object]] = [
        *(["light", step, times.light[step]] for step in NETWORK_STEPS),
        ["light", "volume to depth", f"**{times.light_network_s:.3f}**"],
        *(["light", f"before: {step}", times.light[step]] for step in ("align", "aperture")),
        ["DDFS", "`released` volume, bounded", times.ddfs_volume],
        ["DDFS", f"network, {times.ddfs_parameters / 1e6:.1f} M parameters", times.ddfs_network],
        ["DDFS", "volume to depth", f"**{times.ddfs_s:.3f}**"],
    ]
    ratio = times.ddfs_s / times.light_network_s
    table = markdown_table(["", "step", "time [s]"], rows)
    return f"{table}\n\nThe light network is {ratio:.1f} times as fast from volume to depth."


def _ddfs_seconds(network: DdfsNetwork, stack: FocalStack, depths_m: NDArray[np.float64]) -> tuple[float, float]:
    """Seconds of volume and network."""
    started = time.perf_counter()
    image, cost = (torch.from_numpy(x)[None] for x in ddfs_inputs(stack, depths_m))
    between = time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(usable_cores())
    try:
        with torch.inference_mode():
            expected_depth(network(image, cost)[0], torch.from_numpy(depths_m).float())
    finally:
        torch.set_num_threads(threads)
    return between - started, time.perf_counter() - between
