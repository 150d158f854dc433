"""Health of the depth node for /diagnostics: numbers and a plain sentence."""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from dfs_ros.messages.convert import Diagnostic
from dfs_ros.messages.node_status import FAULTS, MAX_LATENCY_S
from dfs_ros.stacks.assembler import EVENTS, OUTCOMES
from dfs_ros.types import DepthResult

if TYPE_CHECKING:
    from dfs_ros.estimator.parallel import LiveEstimator
    from dfs_ros.network.runners.base import RunnerFault

WINDOW_S = 10.0
_HARDLY_ANY = 0.01
# Outcomes of images that point to a fault of the camera or of the connection.
_WORTH_A_WARNING = ("dropped", "late", "duplicate", "no_focus", "invalid_focus", "wrong_size", "clock_reset")
_MEANING = {**OUTCOMES, **EVENTS}
# A starting camera or a moving lens makes some of these; only these is a fault.
_USELESS = ("no_focus", "invalid_focus", "moving", "same_focus", "incomplete")


class Situation(NamedTuple):
    """Situation of the node: state in words, whether it should compute, counts."""

    state: str
    working: bool
    image_topic: str
    image_publishers: int
    silence_s: float
    superseded: int
    counts: Mapping[str, int]
    """Counts of the StackAssembler."""
    preparing: str = ""
    """Engine build that the network waits for; no depth is published meanwhile."""
    network_faults: Sequence[RunnerFault] = ()
    """Faults of network runners, although one works."""
    stamp_difference_ns: int | None = None
    """Least difference of image and focus stamps that did not match, if small."""
    frame_ids: tuple[str, str] = ("", "")
    """Frames of the images and of their camera_info."""


def state_of(active: bool, estimator: LiveEstimator | None, wanted: bool) -> str:
    """State of a node in a few words."""
    if not active:
        return "inactive"
    if estimator is None:
        return "loading the network"
    if estimator.preparing:
        return "preparing the network"
    return "computing depth" if wanted else "ready; nobody subscribes to depth"


class Health:
    """Rates, latencies and faults of a node, reported from any thread.

    `now_ns`: clock of the stamps, for latencies; `steady_ns`: clock that is never set, for rates and silence. `timed`
    False: measured times are left out, for recordings with repeatable results.
    """

    def __init__(self, now_ns: Callable[[], int], steady_ns: Callable[[], int], timed: bool = True) -> None:
        self._now_ns = now_ns
        self._steady_ns = steady_ns
        self._timed = timed
        self._lock = threading.Lock()
        self._images_ns: deque[int] = deque()
        self._published_ns: deque[int] = deque()
        self._latencies_s: deque[float] = deque()  # of the same results
        self._published_count = 0
        self._seconds: dict[str, float] = {}
        self._coverage = math.nan
        self._faults: Counter[str] = Counter(dict.fromkeys(FAULTS, 0))
        self._fault_texts: dict[str, str] = {}
        self._warnings: list[str] = []
        self._aperture = ""
        self._sigma: Mapping[str, float] = {}
        self._quiet_since_ns = steady_ns()
        self._before: Counter[str] = Counter()

    def start(self) -> None:
        """Expect images from now on."""
        with self._lock:
            self._quiet_since_ns = self._steady_ns()

    def add_image(self) -> None:
        """Count an image that arrived."""
        with self._lock:
            self._quiet_since_ns = self._steady_ns()
            self._images_ns.append(self._quiet_since_ns)
            self._forget()

    def add_result(self, result: DepthResult, newest_stamp_ns: int) -> None:
        """Count a published depth image; its stack's newest image has `newest_stamp_ns`."""
        latency_s = (self._now_ns() - newest_stamp_ns) * 1e-9
        with self._lock:
            self._published_ns.append(self._steady_ns())
            self._latencies_s.append(latency_s if 0 <= latency_s <= MAX_LATENCY_S else math.nan)
            self._published_count += 1
            self._coverage = result.coverage
            self._seconds = dict(result.report.get("seconds", {})) if self._timed else {}
            self._warnings = list(result.report.get("warnings", []))
            self._aperture = _aperture_text(result.report.get("aperture"))
            self._sigma = result.report.get("sigma", {})
            self._forget()

    def add_fault(self, cause: str, text: str) -> None:
        """Count a fault of :data:`FAULTS`."""
        with self._lock:
            self._faults[cause] += 1
            self._fault_texts[cause] = text

    @contextmanager
    def counted(self, cause: str, also: Callable[[str], None] = lambda reason: None) -> Iterator[None]:
        """Count a ValueError of the block under `cause`, and pass it on; `also` is called with its text."""
        try:
            yield
        except ValueError as error:
            self.add_fault(cause, str(error))
            also(str(error))
            raise

    def silence_s(self) -> float:
        """Time since the last image."""
        with self._lock:
            return self._silence_s()

    def diagnostic(self, situation: Situation) -> Diagnostic:
        """Make the diagnostics; events count since the previous call."""
        with self._lock:
            self._forget()
            counts = Counter(situation.counts) + Counter()  # a copy without zeros
            counts.update(self._faults)
            new = counts - self._before
            self._before = counts
            level, text = self._judge(situation, new)
            return Diagnostic(level, text, self._values(situation))

    def _judge(self, now: Situation, new: Counter[str]) -> tuple[str, str]:
        errors = [f"{self._fault_texts[cause]} ({new[cause]} times)" for cause in FAULTS if new[cause]]
        errors += [f"network: {text}" for level, text in now.network_faults if level == "error"]
        silence_s = self._silence_s()
        if silence_s > now.silence_s:
            who = "" if now.image_publishers else ": nobody publishes it"
            if now.image_publishers and new["unmatched_focus"]:
                who = ", but their focus comes: the network loses large messages, set node.reliable_input"
            errors.append(f"no image on {now.image_topic} for {silence_s:.0f} s{who}")
        else:
            useless = {cause: new[cause] for cause in _USELESS if new[cause]}
            if not new["stacks"] and sum(useless.values()) > new["received"] / 2:
                causes = "; ".join(f"{OUTCOMES[cause]} ({times})" for cause, times in useless.items())
                if useless.get("no_focus") and now.stamp_difference_ns is not None:
                    causes += (
                        f"; focus stamps differ from image stamps by {now.stamp_difference_ns} ns: set "
                        "stack.match_tolerance_ns above that"
                    )
                errors.append(f"images come, but make no stack: {causes}")
        if errors:
            return "ERROR", "; ".join(errors)
        warnings = [f"{_MEANING[name]} ({new[name]})" for name in _WORTH_A_WARNING if new[name]]
        warnings += self._warnings[:3]
        of_images, of_info = now.frame_ids
        if of_images and of_info and of_images != of_info:
            warnings.append(
                f"camera_info is of frame '{of_info}', the images are of '{of_images}': is it of this camera?"
            )
        warnings += [f"network: {text}" for level, text in now.network_faults if level == "warning"]
        if now.preparing:
            warnings.append(f"no depth until the network is ready: {now.preparing}")
        if now.working and self._coverage < _HARDLY_ANY:
            warnings.append(
                "hardly a pixel has depth: is there texture, and does the scene lie within hypotheses.min_depth_m "
                "and max_depth_m?"
            )
        if warnings:
            return "WARN", "; ".join(warnings)
        return "OK", now.state

    def _values(self, situation: Situation) -> dict[str, object]:
        now_ns = self._steady_ns()
        latencies = [latency_s for latency_s in self._latencies_s if not math.isnan(latency_s)]
        values: dict[str, object] = {
            "state": situation.state,
            "images_hz": f"{rate_hz(self._images_ns, now_ns):.2f}",
            "depth_hz": f"{rate_hz(self._published_ns, now_ns):.2f}",
            "published": self._published_count,
            "superseded": situation.superseded,
        }
        if situation.network_faults:
            values["network_problems"] = "; ".join(text for _, text in situation.network_faults)
        if latencies:
            values["latency_s"] = f"{sum(latencies) / len(latencies):.3f}"
            values["latency_max_s"] = f"{max(latencies):.3f}"
        if not math.isnan(self._coverage):
            values["share_with_depth"] = f"{self._coverage:.3f}"
        if self._aperture:
            values["aperture"] = self._aperture
        for part in ("local", "aperture", "gain", "offset"):
            if math.isfinite(share := self._sigma.get(part, math.nan)):
                values[f"sigma {part}"] = f"{share:.4f}"
        values |= {f"seconds {step}": f"{seconds:.3f}" for step, seconds in self._seconds.items()}
        return values | dict(situation.counts) | dict(self._faults)

    def _silence_s(self) -> float:
        return (self._steady_ns() - self._quiet_since_ns) * 1e-9

    def _forget(self) -> None:
        """Drop times beyond the window but for two."""
        now_ns = self._steady_ns()
        for times_ns in (self._images_ns, self._published_ns):
            while len(times_ns) > 2 and now_ns - times_ns[0] > WINDOW_S * 1e9:
                times_ns.popleft()
        while len(self._latencies_s) > len(self._published_ns):
            self._latencies_s.popleft()


def _aperture_text(fitted: Mapping[str, float] | None) -> str:
    """The aperture scale used, and as measured; empty where none was fitted."""
    if fitted is None:
        return ""
    return f"{fitted['scale']:.3f} (measured {fitted['measured']:.3f} +- {fitted['sigma'] * fitted['measured']:.3f})"


def rate_hz(times_ns: Sequence[int], now_ns: int) -> float:
    """Rate of events over 10 s, or of the last two; falls when they stop.

    >>> rate_hz([0, 20 * 10**9, 40 * 10**9], now_ns=45 * 10**9), rate_hz([0, 10**9], now_ns=11 * 10**9)
    (0.05, 0.1)
    """
    recent = [time_ns for time_ns in times_ns if now_ns - time_ns <= WINDOW_S * 1e9]
    recent = recent if len(recent) > 1 else list(times_ns)[-2:]
    if len(recent) < 2 or recent[-1] <= recent[0]:
        return 0.0
    rate = (len(recent) - 1) * 1e9 / (recent[-1] - recent[0])
    return min(rate, 1e9 / max(now_ns - recent[-1], 1))
