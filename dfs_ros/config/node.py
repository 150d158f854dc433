"""Settings of everything around the estimation: sweeps, node, camera, viewer, simulation, DDS."""

from __future__ import annotations

from dataclasses import dataclass

from dfs_ros.config.setting import setting


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
class NodeConfig:
    """The depth node: what it listens to and how it publishes."""

    autostart: bool = setting(
        True, "Configure and activate at once (native ROS 2); false waits for the lifecycle transitions"
    )
    focus_source: str = setting(
        "focus",
        "Where the focus of an image comes from: focus = FrameFocus of the same stamp on the topic focus; "
        "commands = FrameFocus on that topic with the stamps at which the lens was commanded; "
        "schedule = commanded as section schedule says; "
        "diagnostics = LensPosition on /diagnostics, as camera_ros publishes it",
        choices=("focus", "commands", "schedule", "diagnostics"),
    )
    image_transport: str = setting(
        "raw",
        "Images come as sensor_msgs/Image on the topic image, or as CompressedImage (JPEG, PNG) on image/compressed",
        choices=("raw", "compressed"),
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
    keep_memory: bool = setting(True, "Keep the memory of one stack for the next, for speed (glibc only)")
    capture_folder: str = setting(
        "captures", "Folder in which ~/capture makes a folder for each stack; ~ is the home folder", live=True
    )


@dataclass(frozen=True)
class ScheduleConfig:
    """Focus that is commanded and not reported, for node.focus_source schedule and commands."""

    focus_diopters: str = setting(
        "", "Focus positions in the order of the commands, again and again; numbers with commas between", unit="1/m"
    )
    trigger: str = setting(
        "frame",
        "What moves the lens on: frame = the camera's images, the first that comes being at the first position "
        "(start the node before the camera); time = a clock",
        choices=("frame", "time"),
    )
    frames_per_step: int = setting(1, "Images at each position, for trigger frame", low=1, high=1000)
    rate_hz: float = setting(
        0.0,
        "Images per second of the camera, by which lost images are noticed; needed for trigger frame",
        unit="Hz",
        low=0,
        high=1000,
    )
    step_s: float = setting(0.1, "Time at each position, for trigger time", unit="s", low=0.0001, high=3600)
    start_ns: int = setting(
        0,
        "Stamp of a command to the first position, for trigger time; 0 = that of the first image",
        unit="ns",
        low=0,
        high=2**62,
    )
    settle_s: float = setting(
        0.0, "How long the lens moves after a command; images exposed meanwhile are left out", unit="s", low=0, high=60
    )
    exposure_s: float = setting(0.0, "Exposure time, which begins at an image's stamp", unit="s", low=0, high=60)


@dataclass(frozen=True)
class CameraConfig:
    """The camera sources: simulated, a recorded stack, or a V4L2 camera, which has a section of its own."""

    source: str = setting(
        "sim",
        "The camera: sim = simulated, stack = the photos of a focal stack, sweep after sweep, v4l2 = see section v4l2",
        choices=("sim", "stack", "v4l2"),
    )
    stack: str = setting("", "Folder of the focal stack, with source stack")
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
    width: int = setting(320, "Width of simulated images, and of a V4L2 camera's", unit="px", low=32, high=4096)
    height: int = setting(240, "Height of simulated images, and of a V4L2 camera's", unit="px", low=32, high=4096)
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
class V4l2Config:
    """A camera whose focus is set by V4L2 (focus_absolute), as of most UVC webcams."""

    device: str = setting("/dev/video0", "Device file of the camera")
    calibration: str = setting("", "File lens-table/1: which focus_absolute is which dioptres; see `dfs focus-table`")
    camera_info: str = setting(
        "", "File with the intrinsics, of camera_calibration; empty = from lens.focal_length_m and lens.pixel_pitch_m"
    )
    focus_diopters: str = setting(
        "", "Focus positions of a sweep, numbers with commas between; empty = evenly over the calibration", unit="1/m"
    )
    positions: int = setting(5, "Focus positions where focus_diopters does not say", low=2, high=64)
    settle_s: float = setting(
        0.0, "How long the lens takes after a command; 0 = as the calibration says, or 0.3", unit="s", low=0, high=60
    )
    pixel_format: str = setting("MJPG", "How the camera sends images", choices=("MJPG", "YUYV", "UYVY", "GREY"))
    exposure_s: float = setting(0.0, "Exposure time; 0 = as the camera is set", unit="s", low=0, high=10)
    timeout_s: float = setting(3.0, "No image for this long is an error", unit="s", low=0.1, high=60)


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
