"""Rotation of a gyroscope between two times, with its bias.

    R(t0, t1) = exp(w1 dt1) exp(w2 dt2) ...        (Rodrigues)

The rate w is that of the middle of each interval between samples, linear in between, less the bias. The bias is the
mean rate of the last still second: one whose rates hardly vary and stay below the largest bias. A steady turn slower
than that passes for a bias; after a bias was found, its standard deviation is 0.002 rad/s.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np

from dfs_ros.transforms.buffer import BUFFER_S, CLOCK_RESET_S, NoTransform
from dfs_ros.transforms.rigid import Array, rotation_of

_STILL_S = 1.0
_LEAST_STILL = 20  # samples
_STILL_RAD_S = 0.01
"""Largest standard deviation of each axis while still: twice the noise of common MEMS gyroscopes, 0.005 rad/s."""
_DRIFT_RAD_S = 0.002
"""Doubt that remains of a bias found: its drift with temperature, and turns too slow to tell from it."""
_MOST_SAMPLES = 20_000


class Gyroscope:
    """Samples of a gyroscope over the last seconds; times in integer nanoseconds, rates in rad/s in its own frame.

    `bias_rad_s`: mean rate (3,) of the last still second, None before. `resets`: times the clock was set back.
    """

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._rates: list[Array] = []
        self._judged_ns = 0
        self.bias_rad_s: Array | None = None
        self.resets = 0

    def add(self, stamp_ns: int, rate_rad_s: Array, max_bias_rad_s: float) -> None:
        """Add the rate (3,) at a time; `max_bias_rad_s`: largest bias of each axis."""
        if self._stamps and stamp_ns < self._stamps[-1] - round(CLOCK_RESET_S * 1e9):
            self.resets += 1
            self.forget()
        i = bisect_left(self._stamps, stamp_ns)
        if i < len(self._stamps) and self._stamps[i] == stamp_ns:
            return
        self._stamps.insert(i, stamp_ns)
        self._rates.insert(i, rate_rad_s)
        old = bisect_left(self._stamps, self._stamps[-1] - round(BUFFER_S * 1e9))
        old = max(old, len(self._stamps) - _MOST_SAMPLES)
        if old > 0:
            del self._stamps[:old], self._rates[:old]
        if self._stamps[-1] - self._judged_ns >= _STILL_S / 4 * 1e9:
            self._judged_ns = self._stamps[-1]
            self._find_bias(max_bias_rad_s)

    def forget(self) -> None:
        """Forget all samples; the bias stays."""
        self._stamps, self._rates, self._judged_ns = [], [], 0

    def __len__(self) -> int:
        return len(self._stamps)

    def bias_sigma_rad_s(self, max_bias_rad_s: float) -> float:
        """Standard deviation of the rate that a bias leaves: `max_bias_rad_s` before it was found."""
        return max_bias_rad_s if self.bias_rad_s is None else min(_DRIFT_RAD_S, max_bias_rad_s)

    def rotation(self, first_ns: int, last_ns: int, max_gap_s: float) -> Array:
        """Rotation (3, 3) of vectors from the sensor's frame at `last_ns` to its frame at `first_ns`.

        Raises NoTransform for a time outside the samples, or between samples over `max_gap_s` apart.
        """
        if last_ns < first_ns:
            return self.rotation(last_ns, first_ns, max_gap_s).T
        stamps = self._stamps
        if not stamps or last_ns > stamps[-1]:
            behind_s = (last_ns - stamps[-1]) * 1e-9 if stamps else float("inf")
            raise NoTransform("late", f"the gyroscope's samples end {behind_s:.3f} s before it", behind_s)
        if first_ns < stamps[0]:
            raise NoTransform("early", "the gyroscope's samples begin after it")
        # Samples around and within; of equal times the sample itself.
        part = slice(bisect_right(stamps, first_ns) - 1, bisect_left(stamps, last_ns) + 1)
        times = np.array(stamps[part], np.int64)
        gap_s = float(np.diff(times).max(initial=0)) * 1e-9
        if gap_s > max_gap_s:
            raise NoTransform("gap", f"the gyroscope has no sample for {gap_s:.3f} s, over {max_gap_s:g}")
        bias = np.zeros(3) if self.bias_rad_s is None else self.bias_rad_s
        rates = np.array(self._rates[part]) - bias
        ends = np.array([first_ns, *(t for t in times if first_ns < t < last_ns), last_ns], np.int64) - first_ns
        seconds = ends * 1e-9
        middles = (seconds[:-1] + seconds[1:]) / 2
        sampled = (times - first_ns) * 1e-9
        turn = np.eye(3)
        for middle, step in zip(middles, np.diff(seconds), strict=True):
            rate = np.array([np.interp(middle, sampled, rates[:, axis]) for axis in range(3)])
            turn = turn @ rotation_of(rate * step)
        return turn

    def _find_bias(self, max_bias_rad_s: float) -> None:
        since_ns = self._stamps[-1] - round(_STILL_S * 1e9)
        recent = np.array(self._rates[bisect_left(self._stamps, since_ns) :])
        covered = self._stamps[0] <= since_ns and len(recent) >= _LEAST_STILL
        if covered and (recent.std(axis=0) < _STILL_RAD_S).all():
            mean = recent.mean(axis=0)
            if (np.abs(mean) <= max_bias_rad_s).all():
                self.bias_rad_s = mean
