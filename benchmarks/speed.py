"""Time and memory of a cost volume, each case in a process of its own.

A fresh process has empty caches and its own high-water mark of memory, so that cases do not influence each other.
``python -m benchmarks.speed CASE`` measures one case; case and result are JSON.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from scipy import ndimage

from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import cost_volume_from_config
from dfs_ros.cost_volume.hypotheses import depth_hypotheses
from dfs_ros.types import Camera, FocalStack

Volume = NDArray[np.float32]

# The camera of DDFS's DefocusNet stacks and its range of depths, at which the blur stays under 10 px.
_CAMERA = Camera(focal_length_m=2.9e-3, f_number=1.0, pixel_pitch_m=3.1e-3 / 256)
_NEAREST_FOCUS_M, _FARTHEST_FOCUS_M = 0.1, 1.5
_NEAREST_DEPTH_M, _FARTHEST_DEPTH_M = 0.1, 3.0
_MAX_COC_PX = 10.0


@dataclass(frozen=True)
class SpeedCase:
    """Case: a stack of `images` of `height` x `width` at `hypotheses` depths.

    `method` is that of a cost volume, or `skimage` for the `released` one by scikit-image's `restoration.wiener`.
    """

    method: str
    channels: str = "rgb"
    height: int = 256
    width: int = 256
    images: int = 5
    hypotheses: int = 64
    threads: int = 0
    repeats: int = 3


@dataclass(frozen=True)
class SpeedResult:
    """Seconds of the first call, which fills caches, and of the best; peak memory.

    `peak_extra_mb`: peak above the memory at the start. `checksum`: mean of the volume, to compare cases that should
    agree.
    """

    first_s: float
    best_s: float
    peak_extra_mb: float
    checksum: float


def measure(case: SpeedCase, timeout_s: float = 600.0) -> SpeedResult:
    """Measure a case in a fresh process. Raises RuntimeError with its message if it fails."""
    command = [sys.executable, "-m", __name__, json.dumps(dataclasses.asdict(case))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"measuring {case}: not done after {timeout_s:g} s") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(f"measuring {case}: {said[-1]}")
    return SpeedResult(**json.loads(done.stdout))


def best_of(rounds: list[SpeedResult]) -> SpeedResult:
    """Least time and largest memory of several measurements of a case."""
    return SpeedResult(
        first_s=min(result.first_s for result in rounds),
        best_s=min(result.best_s for result in rounds),
        peak_extra_mb=max(result.peak_extra_mb for result in rounds),
        checksum=rounds[0].checksum,
    )


def measure_here(case: SpeedCase) -> SpeedResult:
    """Measure a case in this process.

    The peak of memory is that of the process's whole life: a used process may report an earlier one.
    """
    stack, depths_m = synthetic_stack(case)
    compute = _computation(case, stack, depths_m)
    before = psutil.Process().memory_info().rss
    seconds = []
    for _ in range(case.repeats):
        begin = time.perf_counter()
        volume = compute()
        seconds.append(time.perf_counter() - begin)
    return SpeedResult(seconds[0], min(seconds), (peak_bytes() - before) / 1e6, float(volume.mean(dtype=np.float64)))


def synthetic_stack(case: SpeedCase) -> tuple[FocalStack, NDArray[np.float64]]:
    """Stack of noise, as images do not change the time, and hypotheses in metres."""
    shape = (case.images, case.height, case.width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    focus = np.linspace(1 / _NEAREST_FOCUS_M, 1 / _FARTHEST_FOCUS_M, case.images)
    depths_m = depth_hypotheses(_NEAREST_DEPTH_M, _FARTHEST_DEPTH_M, case.hypotheses, "linear")
    return FocalStack(images, focus, _CAMERA), depths_m


def skimage_volume(stack: FocalStack, depths_m: NDArray[np.float64], threads: int) -> Volume:
    """`released` volume by `skimage.restoration.wiener`, for each image and colour; threaded hypotheses."""
    from skimage.restoration import wiener

    from dfs_ros.cost_volume.problem import make_problem
    from dfs_ros.cost_volume.reference import table_psf
    from dfs_ros.system.cores import for_each, usable_cores

    cost = CostConfig(method="released", max_coc_px=_MAX_COC_PX).resolved()
    coc_px = make_problem(stack, depths_m, cost).coc_px
    images = stack.images / 255.0
    volume = np.empty((len(depths_m), *stack.size), np.float32)

    def fill(d: int) -> None:
        sharp = np.empty(images.shape)
        for f, image in enumerate(images):
            psf = table_psf(coc_px[d, f])
            for channel in range(3):
                deblurred = wiener(image[..., channel], psf, balance=cost.eps, clip=False)  # type: ignore[no-untyped-call]
                sharp[f, ..., channel] = deblurred
        mean = ndimage.gaussian_filter(sharp.mean(axis=0), cost.window_sigma_px)
        variance = ndimage.gaussian_filter(((sharp - mean) ** 2).mean(axis=0), cost.window_sigma_px)
        volume[d] = np.sqrt(variance).sum(axis=-1)

    for_each(fill, len(depths_m), threads or usable_cores())
    return volume


def _computation(case: SpeedCase, stack: FocalStack, depths_m: NDArray[np.float64]) -> Callable[[], Volume]:
    if case.method == "skimage":
        import skimage.restoration  # noqa: F401 - loading it is not part of the computation

        return lambda: skimage_volume(stack, depths_m, case.threads)
    cost = CostConfig(method=case.method, channels=case.channels, max_coc_px=_MAX_COC_PX)
    return lambda: cost_volume_from_config(stack, depths_m, cost, threads=case.threads)


def peak_bytes() -> int:
    """High-water mark of this process's memory."""
    status = Path("/proc/self/status")
    if status.is_file():  # not getrusage, whose peak starts at the parent's memory
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(measure_here(SpeedCase(**json.loads(sys.argv[1]))))))
