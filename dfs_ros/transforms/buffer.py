"""Buffer of tf: transforms between frames over the last seconds, interpolated, never extrapolated.

Each frame has one parent. Between two stamps a transform is interpolated (straight, slerp). Refused with a cause
(:data:`CAUSES`) is all that would be a guess: a stamp outside the received ones, between samples too far apart, or
across a jump. A clock set back empties the buffer, so that no pose joins two runs.

>>> buffer = TransformBuffer()
>>> buffer.add("odom", "camera", 0, transform((0, 0, 0)))
>>> buffer.add("odom", "camera", 100_000_000, transform((0.02, 0, 0)))
>>> buffer.at("camera", "odom", 25_000_000, max_gap_s=0.2).translation_m.tolist()
[0.005, 0.0, 0.0]
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np

from dfs_ros.transforms.rigid import IDENTITY, Transform, transform, vector_of

__all__ = ["BUFFER_S", "CAUSES", "CLOCK_RESET_S", "NoTransform", "TransformBuffer", "transform"]

BUFFER_S = 10.0
"""Age of the oldest transforms kept, relative to the newest of the same frame."""
CLOCK_RESET_S = 0.5
"""Smallest step back of a frame's stamps that counts as a clock reset; a smaller one is a late message."""
_MOST_SAMPLES = 20_000
_MOST_FRAMES = 2_000

CAUSES = {
    "disconnected": "no chain of transforms between the frames",
    "static": "static transforms alone between the frames, which tell of no motion",
    "late": "the newest transform is older than the image",
    "early": "the oldest transform is newer than the image",
    "gap": "transforms around the image too far apart",
    "jump": "a step that no camera makes: odometry reset, wrong stamps, or two publishers of one frame",
}
# A sample is held against the line between its neighbours, with this noise, and this arm for its rotation.
_NOISE_M = 1e-3
_ARM_M = 0.3


class NoTransform(LookupError):
    """Missing transform, for one of :data:`CAUSES`; `behind_s`: time from the newest one to a `late` stamp."""

    def __init__(self, cause: str, text: str, behind_s: float = 0.0) -> None:
        super().__init__(f"{CAUSES[cause]}: {text}")
        self.cause = cause
        self.behind_s = behind_s


class _Track:
    """Transforms of one frame to its parent, in the order of their stamps; one without stamp if static."""

    def __init__(self, parent: str) -> None:
        self.parent = parent
        self.stamps: list[int] = []
        self.samples: list[Transform] = []
        self.static: Transform | None = None

    def add(self, stamp_ns: int, sample: Transform) -> None:
        i = bisect_left(self.stamps, stamp_ns)
        if i < len(self.stamps) and self.stamps[i] == stamp_ns:  # sent again
            return
        self.stamps.insert(i, stamp_ns)
        self.samples.insert(i, sample)
        oldest_ns = self.stamps[-1] - round(BUFFER_S * 1e9)
        old = max(bisect_left(self.stamps, oldest_ns), len(self.stamps) - _MOST_SAMPLES)
        if old > 0:
            del self.stamps[:old], self.samples[:old]

    def at(self, name: str, stamp_ns: int, max_gap_s: float) -> Transform:
        if self.static is not None:
            return self.static
        i = bisect_left(self.stamps, stamp_ns)
        if i == len(self.stamps):
            behind_s = (stamp_ns - self.stamps[-1]) * 1e-9 if self.stamps else float("inf")
            raise NoTransform("late", f"{self.parent} -> {name} ends {behind_s:.3f} s before it", behind_s)
        if self.stamps[i] == stamp_ns:
            return self.samples[i]
        if i == 0:
            ahead_s = (self.stamps[0] - stamp_ns) * 1e-9
            raise NoTransform("early", f"{self.parent} -> {name} begins {ahead_s:.3f} s after it")
        before_ns, after_ns = self.stamps[i - 1 : i + 1]
        if after_ns - before_ns > max_gap_s * 1e9:
            gap_s = (after_ns - before_ns) * 1e-9
            raise NoTransform("gap", f"{self.parent} -> {name} has none for {gap_s:.3f} s, over {max_gap_s:g}")
        share = (stamp_ns - before_ns) / (after_ns - before_ns)
        return self.samples[i - 1].towards(self.samples[i], share)

    def check(self, name: str, first_ns: int, last_ns: int, max_acceleration: float) -> None:
        """Raise NoTransform for a jump from the sample before `first_ns` to the one after `last_ns`."""
        # One sample more on each side: a step shows in the samples at both of its ends.
        first = max(bisect_right(self.stamps, first_ns) - 2, 0)
        part = slice(first, bisect_left(self.stamps, last_ns) + 2)
        stamps, samples = self.stamps[part], self.samples[part]
        for i in range(1, len(stamps) - 1):
            before_s, after_s = (stamps[i] - stamps[i - 1]) * 1e-9, (stamps[i + 1] - stamps[i]) * 1e-9
            line = samples[i - 1].towards(samples[i + 1], before_s / (before_s + after_s))
            off_m = float(np.linalg.norm(samples[i].translation_m - line.translation_m))
            off_m += _ARM_M * float(np.linalg.norm(vector_of(line.rotation.T @ samples[i].rotation)))
            if off_m > _NOISE_M + 0.5 * max_acceleration * before_s * after_s:
                raise NoTransform("jump", f"{self.parent} -> {name} is {off_m:.3g} m off the line of its neighbours")


class TransformBuffer:
    """Buffer of transforms between frames, see the head of this module.

    `resets`: times a clock was set back; `reparented`: times a frame changed its parent.
    """

    def __init__(self) -> None:
        self._tracks: dict[str, _Track] = {}
        self.resets = 0
        self.reparented = 0

    def __len__(self) -> int:
        """Number of frames with a parent."""
        return len(self._tracks)

    def add(self, parent: str, child: str, stamp_ns: int, sample: Transform) -> None:
        """Add a transform from `child` to `parent` at a time.

        Raises ValueError for names that are empty or equal, and beyond a number of frames that no robot has.
        """
        track = self._track(parent, child)
        if track.static is not None:
            track = self._tracks[_name(child)] = _Track(track.parent)
        if track.stamps and stamp_ns < track.stamps[-1] - round(CLOCK_RESET_S * 1e9):
            self.resets += 1
            self.forget()
            track = self._track(parent, child)
        track.add(stamp_ns, sample)

    def add_static(self, parent: str, child: str, sample: Transform) -> None:
        """Add a transform from `child` to `parent` that holds at any time; errors as of :meth:`add`."""
        self._track(parent, child).static = sample

    def forget(self) -> None:
        """Forget all transforms but the static ones."""
        self._tracks = {name: track for name, track in self._tracks.items() if track.static is not None}

    def connected(self, source: str, target: str) -> bool:
        """True if transforms that move lead from one frame to another, at whatever time."""
        try:
            return bool(self._moving(*self._ways(source, target)))
        except NoTransform:
            return False

    def fixed(self, source: str, target: str) -> Transform:
        """Static transform of points from frame `source` to frame `target`; raises NoTransform without one."""
        up, down = self._ways(source, target)
        if moving := self._moving(up, down):
            raise NoTransform("disconnected", f"{source} and {target}, but for {moving[0]}, which moves")
        return self._composed(up, down, 0, 0.0)

    def at(self, source: str, target: str, stamp_ns: int, *, max_gap_s: float) -> Transform:
        """Transform of points from frame `source` to frame `target` at a time, by samples up to `max_gap_s` apart.

        Raises NoTransform, with its cause.
        """
        up, down = self._ways(source, target)
        if not self._moving(up, down):
            raise NoTransform("static", f"{source} and {target}")
        return self._composed(up, down, stamp_ns, max_gap_s)

    def check(self, source: str, target: str, first_ns: int, last_ns: int, max_acceleration: float) -> None:
        """Raise NoTransform for a jump between two times in a transform between two frames.

        A sample is one if it lies over ``1 mm + a dt1 dt2 / 2`` off the line between its neighbours, `dt1` and `dt2`
        seconds away, at an acceleration `a` of `max_acceleration` in m/s^2; a rotation counts at an arm of 0.3 m.
        """
        for way in self._ways(source, target):
            for name in way:
                self._tracks[name].check(name, first_ns, last_ns, max_acceleration)

    def _track(self, parent: str, child: str) -> _Track:
        parent, child = _name(parent), _name(child)
        if not parent or not child or parent == child:
            raise ValueError(f"transform: expected two frames, received '{child}' in '{parent}'")
        track = self._tracks.get(child)
        if track is None or track.parent != parent:
            self.reparented += track is not None
            if track is None and len(self._tracks) >= _MOST_FRAMES:
                raise ValueError(f"transform: expected at most {_MOST_FRAMES} frames, received '{child}' as one more")
            track = self._tracks[child] = _Track(parent)
        return track

    def _upwards(self, name: str) -> list[str]:
        """A frame and all above it; raises NoTransform for a circle."""
        names = [_name(name)]
        while (track := self._tracks.get(names[-1])) is not None:
            if track.parent in names:
                raise NoTransform("disconnected", f"{track.parent} is its own parent, by way of {names[-1]}")
            names.append(track.parent)
        return names

    def _moving(self, up: list[str], down: list[str]) -> list[str]:
        return [name for name in (*up, *down) if self._tracks[name].static is None]

    def _ways(self, source: str, target: str) -> tuple[list[str], list[str]]:
        """Frames below their nearest common one, from `source` and from `target` upwards."""
        up, down = self._upwards(source), self._upwards(target)
        common = next((name for name in up if name in down), None)
        if common is None:
            raise NoTransform("disconnected", f"{source} and {target}")
        return up[: up.index(common)], down[: down.index(common)]

    def _composed(self, up: list[str], down: list[str], stamp_ns: int, max_gap_s: float) -> Transform:
        to_common, to_target = (self._climbed(way, stamp_ns, max_gap_s) for way in (up, down))
        return to_target.inverse().after(to_common)

    def _climbed(self, way: list[str], stamp_ns: int, max_gap_s: float) -> Transform:
        whole = IDENTITY
        for name in way:
            whole = self._tracks[name].at(name, stamp_ns, max_gap_s).after(whole)
        return whole


def _name(frame: str) -> str:
    """Name of a frame, without the slash of ROS 1."""
    return frame.removeprefix("/")
