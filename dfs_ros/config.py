"""Every default of the package, written once.

The command line, YAML files and ROS parameters are all made from these dataclasses: each setting carries its
description, unit, range and whether it may change while a node runs. Unknown keys and values out of range are errors.

>>> Config.from_dict({"hypotheses": {"count": 32}}).hypotheses.count
32
>>> Config.from_dict({"hypotheses": {"cuont": 32}})
Traceback (most recent call last):
ValueError: hypotheses.cuont: unknown setting; did you mean 'count'? known: count, max_depth_m, min_depth_m, spacing
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints


def setting(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    live: bool = False,
) -> Any:
    """A dataclass field with description, unit, inclusive range or choices; `live` = may change while a node runs."""
    metadata = {"doc": doc, "unit": unit, "low": low, "high": high, "choices": choices, "live": live}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class LensConfig:
    """The lens, where neither the stack nor the focus messages say."""

    focal_length_m: float = setting(0.0, "Focal length; 0 = from the focus messages", unit="m", low=0, high=2)
    f_number: float = setting(0.0, "f-number; 0 = from the focus messages", low=0, high=128)
    pixel_pitch_m: float = setting(
        0.0, "Size of an image pixel on the sensor; 0 = from focal length and camera_info", unit="m", low=0, high=1e-3
    )
    reference_focus_diopters: float = setting(
        0.0, "Focus at which camera_info was calibrated", unit="1/m", low=0, high=100
    )
    aperture_scale: float = setting(
        1.0,
        "True blur over what focal length, f-number and pixel size say; `dfs calibrate` fits it",
        low=0.1,
        high=10,
        live=True,
    )


NEAREST_DEPTH_M = 0.31
"""The nearest depth tried, unless the settings say or a stack is focused nearer."""


@dataclass(frozen=True)
class HypothesesConfig:
    """The depths that are tried at every pixel."""

    min_depth_m: float = setting(
        0.0,
        f"Nearest depth tried; 0 = {NEAREST_DEPTH_M} m, or a fifth nearer than the nearest focus where that is nearer",
        unit="m",
        low=0,
        high=1000,
        live=True,
    )
    max_depth_m: float = setting(10.0, "Farthest depth tried", unit="m", low=0.01, high=10000, live=True)
    count: int = setting(64, "Number of depths tried", low=2, high=512, live=True)
    spacing: str = setting(
        "inverse", "Even steps in inverse depth (dioptres) or in depth", choices=("inverse", "linear"), live=True
    )


# What "auto", 0 and -1 mean for each cost volume. The DDFS volumes follow their authors' code and text. Those of
# `residual` are measured on rendered stacks: luma costs 7 % of accuracy for a third of the time; a raw argmin likes a
# wider window (3 px), but regularisation and network, which look around a pixel themselves, a narrower one (1 to
# 1.5 px).
_COST_METHODS: dict[str, dict[str, Any]] = {
    "released": {
        "psf": "table",
        "eps": 0.01,
        "window_sigma_px": 1.0,
        "padding_px": 0,
        "transfer_curve": "linear",
        "channels": "rgb",
    },
    "paper": {
        "psf": "disk",
        "eps": 0.01,
        "window_sigma_px": 1.0,
        "padding_px": 0,
        "transfer_curve": "linear",
        "channels": "rgb",
    },
    "residual": {
        "psf": "disk",
        "eps": 0.01,
        "window_sigma_px": 1.5,
        "padding_px": 16,
        "transfer_curve": "srgb",
        "channels": "luma",
    },
}


@dataclass(frozen=True)
class CostConfig:
    """The cost volume: how badly a depth explains the stack around a pixel."""

    method: str = setting("residual", "Which cost volume", choices=tuple(_COST_METHODS))
    psf: str = setting(
        "auto",
        "Point spread function: disk (analytic), table (DDFS's rasterised disk), gaussian; auto = the method's own",
        choices=("auto", "disk", "table", "gaussian"),
    )
    max_coc_px: float = setting(40.0, "Blur diameters are clamped here", unit="px", low=1, high=200)
    eps: float = setting(0.0, "Regularisation of the deconvolution; 0 = the method's own", low=0, high=1)
    window_sigma_px: float = setting(
        0.0, "Gaussian window of the cost; 0 = the method's own", unit="px", low=0, high=20
    )
    padding_px: int = setting(-1, "Reflected border before the FFT; -1 = the method's own", unit="px", low=-1, high=128)
    transfer_curve: str = setting(
        "auto",
        "Pixel values to light: srgb (decoded before the FFT), linear (used as they are); auto = the method's own",
        choices=("auto", "srgb", "linear"),
    )
    channels: str = setting(
        "auto",
        "Colour channels used: rgb, or luma (a third of the time); auto = the method's own",
        choices=("auto", "rgb", "luma"),
    )

    def resolved(self) -> CostConfig:
        """The same with every `auto`, 0 and -1 replaced by what it means for the method."""
        # The defaults of these settings are just those marks.
        methods_own = _COST_METHODS[self.method].items()
        own = {name: value for name, value in methods_own if getattr(self, name) == getattr(CostConfig, name)}
        return dataclasses.replace(self, **own)


@dataclass(frozen=True)
class RegularizationConfig:
    """How `network: none` turns a cost volume into depth."""

    guided_radius_px: int = setting(
        4, "Radius of the guided filter on each cost slice; 0 = off", unit="px", low=0, high=64, live=True
    )
    guided_eps: float = setting(
        1e-3, "Contrast under which the guide counts as flat, squared", low=1e-8, high=1, live=True
    )
    smoothness: float = setting(
        0.2, "Cost of a depth step of one hypothesis between neighbours; 0 = off", low=0, high=100, live=True
    )
    edge_contrast: float = setting(
        0.05, "Image contrast at which a depth step costs a third", low=1e-3, high=10, live=True
    )
    sharpness: float = setting(
        4.0,
        "Probability = softmax of minus the energy times this; sets sigma, not depth",
        low=0.01,
        high=1000,
        live=True,
    )


@dataclass(frozen=True)
class NetworkConfig:
    """The network between cost volume and depth."""

    name: str = setting("light", "none = regularised argmin, or a model of models/")
    runner: str = setting(
        "auto", "What runs the network", choices=("auto", "torch", "onnx", "tensorrt", "tensorrt_rtx")
    )


@dataclass(frozen=True)
class ConfidenceConfig:
    """Where there is depth at all."""

    dense: bool = setting(False, "Depth at every pixel, however unsure", live=True)
    min_confidence: float = setting(
        0.4,
        "Pixels whose best depth removes less than this share of the typical misfit get no depth",
        low=0,
        high=1,
        live=True,
    )
    max_relative_sigma: float = setting(
        0.3,
        "Pixels whose standard deviation is over this share of their depth get no depth",
        low=0.001,
        high=10,
        live=True,
    )


@dataclass(frozen=True)
class AlignmentConfig:
    """Removal of focus breathing, motion and exposure differences."""

    mode: str = setting(
        "refine",
        "off = images as they are; prior = focus breathing as the lens model or the driver has it; "
        "refine = found in the images, starting there",
        choices=("off", "prior", "refine"),
        live=True,
    )
    prior: str = setting(
        "thin_lens",
        "Magnification where the driver does not give it: 1 / (1 - f D), or linear: zoom_intercept + zoom_slope_m D",
        choices=("thin_lens", "linear"),
        live=True,
    )
    zoom_slope_m: float = setting(
        0.0,
        "Calibrated growth of the image per dioptre of focus; a thin lens' is its focal length",
        unit="m",
        low=-1,
        high=1,
        live=True,
    )
    zoom_intercept: float = setting(1.0, "Calibrated magnification at infinity", low=0.01, high=100, live=True)
    target_focus_diopters: float = setting(
        -1.0,
        "Focus whose magnification the images get; -1 = the reference image's",
        unit="1/m",
        low=-1,
        high=100,
        live=True,
    )
    normalize_exposure: bool = setting(True, "Bring all images to the exposure of the reference", live=True)
    transfer_curve: str = setting(
        "srgb", "How pixel values relate to light, in which images are compared", choices=("srgb", "linear"), live=True
    )
    local_motion: bool = setting(
        True, "Also remove what moves on its own (parallax), where that explains the images better", live=True
    )
    estimation_px: int = setting(
        640,
        "Longest side of the images that motion is found in; images are halved at least",
        unit="px",
        low=64,
        high=4096,
        live=True,
    )
    iterations: int = setting(6, "Most steps at each size of image", low=1, high=100, live=True)
    min_correlation: float = setting(
        0.4, "Images less alike than this do not belong to the stack", low=-1, high=1, live=True
    )
    min_contrast: float = setting(
        1.0, "Images of less local contrast have no texture to align by", unit="grey levels", low=0, high=255, live=True
    )
    max_shift: float = setting(
        0.15,
        "Largest shift of the image centre that is believed, as a share of the longer side",
        low=0,
        high=1,
        live=True,
    )
    max_zoom: float = setting(
        0.1, "Largest difference of scale from the expected one that is believed", low=0, high=1, live=True
    )
    max_rotation_deg: float = setting(10.0, "Largest rotation that is believed", unit="deg", low=0, high=180, live=True)


@dataclass(frozen=True)
class StackConfig:
    """How frames are put together into stacks."""

    mode: str = setting(
        "sweep",
        "One stack for each sweep, or one for each new image from the newest image at every focus",
        choices=("sweep", "sliding"),
    )
    size: int = setting(
        0,
        "Images in a sweep where the driver does not say, and the most a sliding stack holds; "
        "0 = found from the focus sequence, up to 64",
        low=0,
        high=64,
    )
    min_frames: int = setting(
        3, "Fewest focus positions of a sweep that misses images, and of a sliding stack", low=2, high=64
    )
    min_coverage: float = setting(
        0.75, "Share of the previous sweeps' focus range that a sweep with missing images must span", low=0, high=1
    )
    max_span_s: float = setting(
        2.0,
        "Longest time between first and last image of a stack; longer than a sweep takes",
        unit="s",
        low=0.001,
        high=3600,
    )
    focus_tolerance_diopters: float = setting(
        0.02,
        "Images this close in focus are at the same focus position; above the focus noise, below the sweep's step",
        unit="1/m",
        low=1e-5,
        high=1,
    )
    match_tolerance_ns: int = setting(
        0,
        "Largest difference between the stamps of an image and its focus; under half the time between images",
        unit="ns",
        low=0,
        high=10**9,
    )
    reorder_frames: int = setting(
        1, "An image may come after this many newer ones; delays stacks of images without a number", low=0, high=32
    )
    max_pending: int = setting(
        16, "Most images that wait for their focus, and most focus messages that wait for their image", low=1, high=256
    )
    clock_reset_s: float = setting(
        0.5, "An image this much older than the newest means that the clock was set back", unit="s", low=0.01, high=3600
    )


@dataclass(frozen=True)
class ProcessingConfig:
    """Where and how large."""

    device: str = setting("auto", "Where cost volume and network run", choices=("auto", "cpu", "cuda"))
    threads: int = setting(0, "CPU threads; 0 = all cores", low=0, high=256)
    max_megapixels: float = setting(
        1.5,
        "Larger images are reduced to this for processing and the depth enlarged again",
        unit="Mpx",
        low=0.01,
        high=50,
    )
    max_input_megapixels: float = setting(50.0, "Larger images are refused", unit="Mpx", low=0.01, high=200)


@dataclass(frozen=True)
class NodeConfig:
    """The depth node: what it listens to and how it publishes."""

    focus_source: str = setting(
        "focus",
        "Where the focus of an image comes from: focus = FrameFocus messages on the topic focus; "
        "diagnostics = LensPosition on /diagnostics, as camera_ros publishes it",
        choices=("focus", "diagnostics"),
    )
    depth_encoding: str = setting(
        "32FC1",
        "Depth images in metres, NaN unknown (32FC1), or in millimetres, 0 unknown (16UC1)",
        choices=("32FC1", "16UC1"),
        live=True,
    )
    cloud_skip: int = setting(
        1, "Every how many-th pixel each way becomes a point of depth/points", unit="px", low=1, high=64, live=True
    )
    silence_s: float = setting(
        3.0, "No image for this long is reported on /diagnostics", unit="s", low=0.1, high=3600, live=True
    )
    capture_folder: str = setting(
        "captures", "Folder in which ~/capture makes a folder for each stack; ~ is the home folder", live=True
    )


@dataclass(frozen=True)
class CameraConfig:
    """The camera sources: simulated, or a recorded stack."""

    rate_hz: float = setting(30.0, "Images per second", unit="Hz", low=0.01, high=1000)
    frame_id: str = setting("camera_optical_frame", "Frame of the images: x right, y down, z forward")
    sweep: str = setting(
        "triangular",
        "Focus goes forth and back (triangular), or always starts again from the same end (sawtooth)",
        choices=("triangular", "sawtooth"),
    )
    moving_frames: int = setting(
        0, "Simulated images between two focus positions, while the lens moves and says so", low=0, high=8
    )
    width: int = setting(320, "Width of simulated images", unit="px", low=32, high=4096)
    height: int = setting(240, "Height of simulated images", unit="px", low=32, high=4096)
    moving: bool = setting(False, "The simulated camera sways before the scene, or stands still")
    breathing: bool = setting(
        True, "Simulated image scale follows focus, as of a thin lens, which the driver does not report"
    )
    noise: float = setting(
        0.004, "Standard deviation of simulated image noise, as a share of full scale", low=0, high=0.5
    )
    max_megapixels: float = setting(
        1.5, "Larger recorded photos are reduced to this before they are sent", unit="Mpx", low=0.01, high=50
    )


@dataclass(frozen=True)
class ViewerConfig:
    """The live view in the browser."""

    host: str = setting(
        "127.0.0.1",
        "Address the page is served at; 0.0.0.0 shows the camera to everybody on the network, without a password",
    )
    port: int = setting(8080, "Port of the page; 0 = any free one", low=0, high=65535)
    rate_hz: float = setting(8.0, "The page is brought up to date at most this often", unit="Hz", low=0.1, high=60)
    max_points: int = setting(80000, "Larger clouds are thinned by an even grid", low=100, high=2_000_000)
    max_image_px: int = setting(640, "Pictures are reduced to this width", unit="px", low=64, high=4096)
    focus_frames: int = setting(60, "Images in the plot of the focus sweep", low=2, high=1000)


@dataclass(frozen=True)
class SimulationConfig:
    """How focal stacks are rendered from a scene."""

    noise: float = setting(0.004, "Standard deviation of the image noise, as a share of full scale", low=0, high=0.5)
    noise_space: str = setting(
        "srgb",
        "Where noise is added: srgb = to encoded values, alike in dark and bright; linear = to light",
        choices=("srgb", "linear"),
    )
    transfer_curve: str = setting(
        "srgb", "How pixel values relate to light, in which blur happens", choices=("srgb", "linear")
    )
    breathing: bool = setting(False, "Image scale follows focus, as of a thin lens")
    layer_step_px: float = setting(0.5, "Blur diameter between neighbouring depth layers", unit="px", low=0.05, high=10)
    max_layers: int = setting(128, "Depth layers are farther apart where it took more than this", low=1, high=1024)


@dataclass(frozen=True)
class DdsConfig:
    """The DDS transport: a ROS 2 participant without ROS 2. Environment variables as ROS 2 has them."""

    domain_id: int = setting(-1, "ROS domain; -1 = ROS_DOMAIN_ID, or 0", low=-1, high=232)
    discovery_range: str = setting(
        "auto",
        "Who is discovered; auto = ROS_AUTOMATIC_DISCOVERY_RANGE, or this host alone",
        choices=("auto", "localhost", "subnet", "off", "system_default"),
    )
    static_peers: str = setting("", "Other hosts that are discovered, with semicolons between; as ROS_STATIC_PEERS")
    interface: str = setting("", "Network interface (name or address) to use alone; empty = chosen by Cyclone DDS")
    max_message_bytes: int = setting(65500, "Largest UDP packet", unit="B", low=1500, high=65500)
    fragment_bytes: int = setting(65000, "Larger messages are sent in parts", unit="B", low=1000, high=65000)
    receive_buffer_bytes: int = setting(
        16 * 2**20,
        "Socket buffer asked of the system, which may give less (net.core.rmem_max)",
        unit="B",
        low=2**16,
        high=2**30,
    )


@dataclass(frozen=True)
class Config:
    """All settings. Frozen; make variants with :func:`dataclasses.replace` or :meth:`from_dict`."""

    lens: LensConfig = field(default_factory=LensConfig)
    hypotheses: HypothesesConfig = field(default_factory=HypothesesConfig)
    cost: CostConfig = field(default_factory=CostConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    stack: StackConfig = field(default_factory=StackConfig)
    processing: ProcessingConfig = field(default_factory=ProcessingConfig)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    node: NodeConfig = field(default_factory=NodeConfig)
    camera: CameraConfig = field(default_factory=CameraConfig)
    viewer: ViewerConfig = field(default_factory=ViewerConfig)
    dds: DdsConfig = field(default_factory=DdsConfig)

    def __post_init__(self) -> None:
        for name, section in sections(self):
            for setting_field in dataclasses.fields(section):
                value = _checked(getattr(section, setting_field.name), setting_field, type(section), name)
                object.__setattr__(section, setting_field.name, value)
        if self.hypotheses.min_depth_m >= self.hypotheses.max_depth_m:
            raise ValueError(
                f"hypotheses: expected min_depth_m < max_depth_m, received {self.hypotheses.min_depth_m} and "
                f"{self.hypotheses.max_depth_m}"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """Defaults changed by a nested mapping ``{section: {setting: value}}``; unknown keys are errors."""
        return cls().updated(values)

    @classmethod
    def load(cls, path: str | Path) -> Config:
        """Defaults changed by a YAML file of the same nesting."""
        import yaml

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"configuration {path}: no such file")
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or no date
            raise ValueError(f"configuration {path}: not readable as YAML: {yaml_problem(error)}") from error
        if values is None:
            values = {}
        if not isinstance(values, Mapping):
            raise ValueError(f"configuration {path}: expected sections with settings, received {type(values).__name__}")
        try:
            return cls.from_dict(values)
        except ValueError as error:
            raise ValueError(f"configuration {path}: {error}") from error

    def updated(self, values: Mapping[str, Any]) -> Config:
        """This configuration with a nested mapping of changes."""
        changed = {}
        known_sections = dict(sections(self))
        for name, settings in values.items():
            if name not in known_sections:
                raise ValueError(unknown_name(str(name), known_sections, "section"))
            settings = {} if settings is None else settings  # a section whose settings are all commented out
            if not isinstance(settings, Mapping):
                raise ValueError(f"{name}: expected settings of the section, received {settings!r}")
            known = {f.name for f in dataclasses.fields(known_sections[name])}
            for key in settings:
                if key not in known:
                    raise ValueError(unknown_name(f"{name}.{key}", known, "setting"))
            changed[name] = dataclasses.replace(known_sections[name], **settings)
        return dataclasses.replace(self, **changed)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Nested plain values, as :meth:`from_dict` takes them."""
        return dataclasses.asdict(self)


def sections(config: Config) -> Iterator[tuple[str, Any]]:
    """(name, section) of a configuration, in order."""
    for f in dataclasses.fields(config):
        yield f.name, getattr(config, f.name)


def unknown_name(name: str, known: Any, what: str) -> str:
    """The message for a name that is not known, with the nearest that is."""
    close = difflib.get_close_matches(name.rpartition(".")[2], list(known), 1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{name}: unknown {what}; {hint}known: {', '.join(sorted(known))}"


def yaml_problem(error: Exception) -> str:
    """What is wrong with a YAML text, in one line."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem and mark:
        return f"line {mark.line + 1}: {problem}"
    return " ".join(str(error).split())


def _checked(value: Any, setting_field: dataclasses.Field[Any], section: type, section_name: str) -> Any:
    name = f"{section_name}.{setting_field.name}"
    meta = setting_field.metadata
    expected = _hints(section)[setting_field.name]
    value = _as_meant(value, expected, meta["choices"] or ())
    if type(value) is not expected:
        raise ValueError(f"{name}: expected {expected.__name__}, received {value!r}")
    if meta["choices"] is not None and value not in meta["choices"]:
        raise ValueError(f"{name}: expected one of {', '.join(meta['choices'])}, received {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, received {value}")
    low, high = meta["low"], meta["high"]
    if (low is not None and value < low) or (high is not None and value > high):
        unit = f" {meta['unit']}" if meta["unit"] else ""
        raise ValueError(f"{name}: expected {low} to {high}{unit}, received {value}")
    return value


@functools.cache
def _hints(section: type) -> dict[str, Any]:
    return get_type_hints(section)  # slow: compiles each annotation


def _as_meant(value: Any, expected: type, choices: tuple[str, ...]) -> Any:
    # YAML 1.1 reads `1e-3` as text, for want of a point, and `off` as false.
    if expected is float and type(value) in (int, str):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return value
    return "off" if value is False and "off" in choices else value
