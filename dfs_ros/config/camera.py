"""Settings of cameras and of lenses that are swept."""

from __future__ import annotations

from dataclasses import dataclass

from dfs_ros.config.setting import setting


@dataclass(frozen=True)
class CameraConfig:
    """Camera source: simulated, recorded stack, V4L2, Raspberry Pi or OAK camera, virtual lens."""

    source: str = setting(
        "sim",
        "Camera. sim: simulated; stack: images of a focal stack, repeated for ever; v4l2: section v4l2; picamera2 "
        "(Raspberry Pi) and oak (Luxonis): section reporting; rgbd: virtual lens over colour and depth, section rgbd",
        choices=("sim", "stack", "v4l2", "picamera2", "oak", "rgbd"),
    )
    stack: str = setting("", "Folder of the focal stack (source stack)")
    rate_hz: float = setting(30.0, "Frame rate; of a real camera the rate asked for", unit="Hz", low=0.01, high=1000)
    frame_id: str = setting(
        "camera_optical_frame", "Frame id of the images: an optical frame, x right, y down, z forward"
    )
    body_frame: str = setting(
        "camera_link",
        "Frame of the camera body, x forward, y left, z up: that of the transforms of a moving simulated camera",
    )
    sweep: str = setting(
        "triangular",
        "Order of the focus positions. triangular: forth and back; sawtooth: always from the same end",
        choices=("triangular", "sawtooth"),
    )
    moving_frames: int = setting(
        0, "Number of simulated images during each lens movement, reported as moving", low=0, high=8
    )
    width: int = setting(320, "Width of simulated and camera images", unit="px", low=32, high=4096)
    height: int = setting(240, "Height of simulated and camera images", unit="px", low=32, high=4096)
    moving: bool = setting(
        False,
        "Sway the simulated camera before the scene, with transforms from motion.frame to body_frame on /tf; false: it "
        "stands still",
    )
    sway_period_s: float = setting(
        12.0,
        "Period of the sway of 3 cm sideways and 1.2 cm up and down; 12 s: at most 22 mm/s, 1 s: 240 mm/s",
        unit="s",
        low=0.1,
        high=3600,
    )
    breathing: bool = setting(True, "Simulate focus breathing of a thin lens; its magnification is not reported")
    noise: float = setting(
        0.004, "Standard deviation of the simulated image noise, as a fraction of full scale", low=0, high=0.5
    )
    jpeg_quality: int = setting(
        95,
        "Quality of the JPEGs on image/compressed, computed while subscribed (node.image_transport compressed); "
        "0: not offered",
        low=0,
        high=100,
    )
    max_megapixels: float = setting(
        1.5, "Maximum size of recorded images sent; larger ones are reduced", unit="Mpx", low=0.01, high=50
    )


@dataclass(frozen=True)
class SweptCameraConfig:
    """Sweep of a camera's own lens."""

    camera_info: str = setting(
        "",
        "Intrinsics file as camera_calibration writes it; empty: from the calibration, or from lens.focal_length_m and "
        "lens.pixel_pitch_m",
    )
    focus_diopters: str = setting(
        "",
        "Focus positions of a sweep, comma-separated; empty: `positions` values, evenly over the calibration",
        unit="1/m",
    )
    positions: int = setting(5, "Number of focus positions if focus_diopters is empty", low=2, high=64)
    settle_s: float = setting(
        0.0,
        "Settling time of the lens after a command; 0: from the calibration, otherwise 0.3 s",
        unit="s",
        low=0,
        high=60,
    )
    exposure_s: float = setting(
        0.0,
        "Exposure time (oak: its upper limit); 0: the camera's own setting, at most a frame period",
        unit="s",
        low=0,
        high=10,
    )
    timeout_s: float = setting(
        3.0, "Time without an image after which the camera counts as failed", unit="s", low=0.1, high=60
    )


@dataclass(frozen=True)
class V4l2Config(SweptCameraConfig):
    """V4L2 camera with a focus control (focus_absolute), such as UVC webcams."""

    device: str = setting("/dev/video0", "Device file of the camera")
    calibration: str = setting(
        "",
        "Older name of lens.calibration, which has precedence; one of both is required",
    )
    pixel_format: str = setting("MJPG", "Pixel format asked of the camera", choices=("MJPG", "YUYV", "UYVY", "GREY"))


@dataclass(frozen=True)
class ReportingConfig(SweptCameraConfig):
    """Camera that reports its lens position with each image: picamera2 or oak of camera.source."""

    device: str = setting(
        "", "Camera. picamera2: its number; oak: device id or address; empty: the first that is found"
    )


@dataclass(frozen=True)
class SweeperConfig:
    """Sweep of the lens of a camera that another driver runs (focus_sweeper); v4l2.device and camera.sweep, too."""

    driver: str = setting(
        "camera_ros",
        "Way to the lens. camera_ros: parameters AfMode and LensPosition of `node`; parameter: `parameter` of `node`; "
        "v4l2: focus_absolute of v4l2.device, beside its driver; topic: std_msgs/Float64 on lens_position; optotune: "
        "focal power of a liquid lens, by its driver at `port`",
        choices=("camera_ros", "parameter", "v4l2", "topic", "optotune"),
    )
    node: str = setting("camera", "Node whose parameters are set")
    port: str = setting("/dev/ttyACM0", "Serial port of the lens driver (driver optotune)")
    parameter: str = setting("focus_absolute", "Parameter that is the lens position (driver parameter)")
    manual: str = setting(
        "",
        "Parameters set with each position, so that the driver leaves the lens alone, as in focus_auto=0, "
        "comma-separated whole numbers (driver parameter)",
    )
    focus_diopters: str = setting(
        "", "Focus positions by the calibration, comma-separated; empty: `positions` values, evenly over it", unit="1/m"
    )
    raw_positions: str = setting(
        "", "Raw lens positions instead of focus_diopters, comma-separated: for a lens without a calibration"
    )
    positions: int = setting(5, "Number of positions if none are given", low=2, high=64)
    settle_s: float = setting(
        0.0,
        "Settling time of the lens after a command; 0: from the calibration, otherwise 0.3 s",
        unit="s",
        low=0,
        high=60,
    )
    dwell_s: float = setting(
        0.15, "Time at each position after that, over the exposure and two frame periods", unit="s", low=0.001, high=60
    )
