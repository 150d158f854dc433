"""Sweeper: moves the lens of a camera that another driver runs, and publishes its commands.

    command -> lens settles -> images at the position -> next command

Each command is published on `focus` (FrameFocus, COMMANDED) with its time as stamp, for a depth node with
`node.focus_source` commands. A driver that reports the lens position of each image, as camera_ros does on /diagnostics,
needs no such message. Positions are dioptres by the calibration of the lens, or raw ones.
"""

from __future__ import annotations

import itertools
import math
import threading
from typing import NamedTuple, Protocol

import numpy as np

from dfs_ros.camera.optotune import OptotuneLens
from dfs_ros.camera.source import sweep_order
from dfs_ros.camera.v4l2.device import FOCUS_ABSOLUTE, FOCUS_AUTO, V4l2Controls
from dfs_ros.config import Config, SweeperConfig, numbers
from dfs_ros.lens.calibration import LensCalibration
from dfs_ros.lens.reading import load_lens
from dfs_ros.lens.table import LensTable
from dfs_ros.messages.convert import FOCUS, Diagnostic, focus_message, message
from dfs_ros.transport.base import Publisher, Qos, Transport
from dfs_ros.types import FocusMetadata, LensState

POSITION = "std_msgs/msg/Float64"
_COMMANDS = Qos(reliable=True, depth=50)
_SETTLE_S = 0.3  # without settings and calibration
_ANSWER_S, _RETRY_S = 2.0, 0.5
_INTEGER, _DOUBLE = 2, 3  # rcl_interfaces/ParameterType
_SET, _TYPES = "rcl_interfaces/srv/SetParametersAtomically", "rcl_interfaces/srv/GetParameterTypes"


class Lens(Protocol):
    """Way to a lens; `unit` of its raw positions, "" = any."""

    unit: str

    def move(self, raw: float) -> None:
        """Command a position. Raises TimeoutError without an answer: another try may help; ValueError if refused."""

    def close(self) -> None:
        """Release the lens."""


class ParameterLens:
    """Lens that is a parameter of a node; others are set with it, as whole numbers."""

    def __init__(self, transport: Transport, node: str, parameter: str, manual: dict[str, int], unit: str = "") -> None:
        self._transport, self._node, self._parameter, self._manual = transport, node, parameter, manual
        self.unit = unit
        self.services = {name: f"{node}/{name}" for name in ("get_parameter_types", "set_parameters_atomically")}

    def move(self, raw: float) -> None:
        asked = message(f"{_TYPES}_Request", names=[self._parameter])
        types = self._transport.call_service(self.services["get_parameter_types"], _TYPES, asked, _ANSWER_S).types
        whole = [int(kind) for kind in types] == [_INTEGER]
        position = _value(_INTEGER, integer_value=round(raw)) if whole else _value(_DOUBLE, double_value=raw)
        values = {name: _value(_INTEGER, integer_value=value) for name, value in self._manual.items()}
        parameters = [
            message("rcl_interfaces/msg/Parameter", name=name, value=value)
            for name, value in {**values, self._parameter: position}.items()
        ]
        request = message(f"{_SET}_Request", parameters=parameters)
        service = self.services["set_parameters_atomically"]
        result = self._transport.call_service(service, _SET, request, _ANSWER_S).result
        if not result.successful:
            raise ValueError(
                f"node {self._node}: refuses {self._parameter} = {raw:g}: {result.reason or 'without a reason'}; has "
                "the camera a lens that it can move?"
            )

    def close(self) -> None:
        pass


class V4l2Lens:
    """Lens that is `focus_absolute` of a V4L2 device, from which another program may stream."""

    unit = "focus_absolute"

    def __init__(self, device: str) -> None:
        self._controls = V4l2Controls(device)
        try:
            self._low, self._high, self._step = self._controls.control_range(
                FOCUS_ABSOLUTE, "focus that can be set (focus_absolute)"
            )
            if self._controls.has(FOCUS_AUTO):
                self._controls.set(FOCUS_AUTO, 0)
        except BaseException:
            self._controls.close()
            raise

    def move(self, raw: float) -> None:
        if not self._low <= raw <= self._high:
            raise ValueError(f"{self._controls.path}: takes {self._low} to {self._high}, received {raw:g}")
        step = round((raw - self._low) / self._step) * self._step
        self._controls.set(FOCUS_ABSOLUTE, min(self._low + step, self._high))

    def close(self) -> None:
        self._controls.close()


class TopicLens:
    """Lens that listens to std_msgs/Float64 on `lens_position`."""

    unit = ""

    def __init__(self, transport: Transport) -> None:
        self._publisher: Publisher = transport.create_publisher("lens_position", POSITION, _COMMANDS)

    def move(self, raw: float) -> None:
        if not self._publisher.subscription_count():
            raise TimeoutError(f"topic {self._publisher.topic}: nobody subscribes to it")
        self._publisher.publish(message(POSITION, data=float(raw)))

    def close(self) -> None:
        pass


class Position(NamedTuple):
    """Lens position of a sweep; NaN dioptres = unknown."""

    raw: float
    focus_diopters: float


class FocusSweeper:
    """Sweeper of a lens, see the head of this module.

    Raises FileNotFoundError or ValueError for a calibration and positions that make no sense.
    """

    def __init__(self, transport: Transport, config: Config) -> None:
        self._transport, self._config = transport, config
        calibration = config.lens.calibration
        self._lens_of = load_lens(calibration) if calibration else None
        self._unit = self._unit_of(config.sweeper)
        self.positions = _positions(config.sweeper, self._lens_of, self._unit == "LensPosition")
        settle_s = _SETTLE_S if self._lens_of is None or math.isnan(self._lens_of.settle_s) else self._lens_of.settle_s
        self.step_s = (config.sweeper.settle_s or settle_s) + config.sweeper.dwell_s
        self._focus = transport.create_publisher("focus", FOCUS, _COMMANDS)
        self._lens: Lens | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._commands = 0
        transport.add_diagnostic("sweeper", self._diagnostic)

    @property
    def description(self) -> str:
        """Text on positions and pace."""
        raws, driver = [position.raw for position in self.positions], self._config.sweeper.driver
        return (
            f"{len(raws)} lens positions from {min(raws):g} to {max(raws):g} {self._unit} by {driver}, each for "
            f"{self.step_s:g} s"
        )

    @property
    def services(self) -> list[str]:
        """Services that the lens of the settings calls, resolved."""
        if self._config.sweeper.driver not in ("camera_ros", "parameter"):
            return []
        lens = self._opened()
        return (
            [self._transport.resolve(name) for name in lens.services.values()]
            if isinstance(lens, ParameterLens)
            else []
        )

    def configure(self) -> None:
        """Open the lens."""
        if self._lens is None:
            self._lens = self._opened()

    def activate(self) -> None:
        """Start sweeping."""
        self.configure()
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
            self._thread.start()

    def deactivate(self) -> None:
        """Leave the lens where it is."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Stop, and release the lens."""
        self.deactivate()
        if self._lens is not None:
            self._lens.close()
            self._lens = None

    def _opened(self) -> Lens:
        settings = self._config.sweeper
        if settings.driver == "v4l2":
            return V4l2Lens(self._config.v4l2.device)
        if settings.driver == "topic":
            return TopicLens(self._transport)
        if settings.driver == "optotune":
            return OptotuneLens(settings.port)
        if settings.driver == "camera_ros":  # AfMode 0: manual
            return ParameterLens(self._transport, settings.node, "LensPosition", {"AfMode": 0})
        return ParameterLens(self._transport, settings.node, settings.parameter, _manual(settings.manual))

    def _unit_of(self, settings: SweeperConfig) -> str:
        own = {"camera_ros": "LensPosition", "v4l2": V4l2Lens.unit, "optotune": OptotuneLens.unit}.get(
            settings.driver, ""
        )
        told = self._lens_of.unit if self._lens_of is not None else ""
        if own and told not in ("", "raw", own):
            raise ValueError(
                f"{self._config.lens.calibration}: is of lens positions in {told}, the driver {settings.driver} has "
                f"{own}: is the calibration of this camera?"
            )
        return own or told or "raw"

    def _run(self) -> None:
        """Sweep until told to stop, on a thread of its own: a driver may take its time to answer."""
        order = itertools.chain.from_iterable(
            itertools.cycle(sweep_order(len(self.positions), self._config.camera.sweep))
        )
        try:
            last = -1
            for index in order:
                if index == last:  # at the turn
                    continue
                last = index
                if not self._command(self.positions[index]) or self._stop.wait(self.step_s):
                    return
        except Exception as error:  # a lens that stands still must not stay silent
            self._transport.end(error)

    def _command(self, position: Position) -> bool:
        """Move the lens, as soon as its driver answers; False if told to stop before."""
        while self._lens is not None and not self._stop.is_set():
            asked_ns = self._transport.now_ns()
            try:
                self._lens.move(position.raw)
            except TimeoutError as error:
                self._transport.log(
                    "warning", f"the lens does not move: {error}", key="silent", every_s=5.0, error=error
                )
                self._stop.wait(_RETRY_S)
                continue
            self._publish(position, asked_ns)
            return True
        return False

    def _publish(self, position: Position, asked_ns: int) -> None:
        lens = self._lens_of
        camera = lens.camera if isinstance(lens, LensCalibration) else None
        focus = FocusMetadata(
            asked_ns,
            position.focus_diopters,
            lens_state=LensState.UNKNOWN,
            focal_length_m=camera.focal_length_m if camera else math.nan,
            f_number=camera.f_number if camera else math.nan,
        )
        # Not CALIBRATED, so that a node with the calibration takes the raw position, with hysteresis and doubt.
        known = "UNCALIBRATED" if math.isnan(position.focus_diopters) else "APPROXIMATE"
        self._focus.publish(
            focus_message(
                focus,
                self._config.camera.frame_id,
                calibration=known,
                source="COMMANDED",
                raw_position=position.raw,
                raw_unit=self._unit,
            )
        )
        self._commands += 1

    def _diagnostic(self) -> Diagnostic:
        if self._thread is None:
            return Diagnostic("OK", "inactive", {})
        return Diagnostic("OK" if self._commands else "WARN", self.description, {"commands": self._commands})


def _positions(
    settings: SweeperConfig, lens: LensTable | LensCalibration | None, raw_is_diopters: bool
) -> list[Position]:
    """Positions of a sweep, near to far."""
    raws = numbers(settings.raw_positions, "sweeper.raw_positions")
    focus = numbers(settings.focus_diopters, "sweeper.focus_diopters")
    if raws and focus:
        raise ValueError("sweeper: expected raw_positions or focus_diopters, received both")
    if not (raws or lens is not None or (focus and raw_is_diopters)):
        raise ValueError(
            "sweeper: expected lens.calibration, the file that says which lens position is which dioptres (`dfs "
            "calibrate lens --help`), or sweeper.raw_positions"
        )
    if raws:
        found = [Position(raw, lens.focus_of(raw)[0] if lens is not None else math.nan) for raw in raws]
    elif lens is None:
        found = [Position(each, each) for each in focus]
    else:
        low, high = lens.range_diopters
        wanted = focus or tuple(float(each) for each in np.linspace(high, low, settings.positions))
        found = [Position(lens.raw_of(each), each) for each in wanted]
    distinct = {position.raw for position in found}
    if len(distinct) < 2 or not all(map(math.isfinite, distinct)):
        raise ValueError(f"sweeper: expected two or more finite lens positions, received {[p.raw for p in found]}")
    return found


def _manual(text: str) -> dict[str, int]:
    found = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, value = part.partition("=")
        try:
            found[name.strip()] = int(value)
        except ValueError:
            raise ValueError(f"sweeper.manual: expected NAME=WHOLE NUMBER, received {part!r}") from None
    return found


def _value(kind: int, **value: float) -> object:
    return message("rcl_interfaces/msg/ParameterValue", type=kind, **value)
