"""Settings of stacks, node, viewer, simulation and DDS."""

from __future__ import annotations

from dataclasses import dataclass

from dfs_ros.config.setting import setting


@dataclass(frozen=True)
class StackConfig:
    """Assembly of frames into focal stacks."""

    mode: str = setting(
        "sweep",
        "Stack formation. sweep: one stack per focus sweep; sliding: one stack per image, of the newest image at "
        "each focus position",
        choices=("sweep", "sliding"),
    )
    size: int = setting(
        0,
        "Images per sweep where the driver does not report it, and maximum of a sliding stack; 0: from the focus "
        "sequence, at most 64; 1 is refused",
        low=0,
        high=64,
    )
    min_frames: int = setting(
        3,
        "Minimum number of focus positions of a stack; a sweep with all images that the driver or size announces "
        "may have fewer",
        low=2,
        high=64,
    )
    min_coverage: float = setting(
        0.75,
        "Minimum focus range of a sweep, as a fraction of the usual range; a sweep with all images that the "
        "driver or size announces may have less",
        low=0,
        high=1,
    )
    max_span_s: float = setting(
        2.0,
        "Maximum time between the first and last image of a stack; must exceed the duration of a sweep",
        unit="s",
        low=0.001,
        high=3600,
    )
    focus_tolerance_diopters: float = setting(
        0.02,
        "Maximum focus difference of images at the same focus position; set it above the focus noise and below "
        "the step of the sweep",
        unit="1/m",
        low=1e-5,
        high=1,
    )
    match_tolerance_ns: int = setting(
        0,
        "Maximum stamp difference between an image and its focus message; 0: equal stamps; set it below half the "
        "frame period",
        unit="ns",
        low=0,
        high=10**9,
    )
    reorder_frames: int = setting(
        1,
        "Number of newer images that may arrive before an older one; each delays the stacks of unnumbered images "
        "by one frame period; 0: images must arrive in order",
        low=0,
        high=32,
    )
    max_pending: int = setting(
        16,
        "Maximum number of images waiting for focus, and of focus messages waiting for images; beyond it the "
        "oldest is dropped",
        low=1,
        high=256,
    )
    clock_reset_s: float = setting(
        0.5,
        "Minimum backward step of the image stamps that counts as a clock reset; a smaller step counts as a late image",
        unit="s",
        low=0.01,
        high=3600,
    )


@dataclass(frozen=True)
class NodeConfig:
    """Depth node: inputs and outputs."""

    autostart: bool = setting(
        True, "Configure and activate the node at start (native ROS 2); false: wait for lifecycle transitions"
    )
    bond_heartbeat_s: float = setting(
        0.1,
        "Period of the heartbeats on topic bond of an active node, by which nav2's lifecycle_manager notices its death "
        "(native ROS 2, autostart false, package bond); 0: none",
        unit="s",
        low=0,
        high=10,
    )
    focus_source: str = setting(
        "focus",
        "Source of each image's focus. focus: FrameFocus of equal stamp on topic focus; commands: FrameFocus on "
        "topic focus, stamped with the time of the lens command; schedule: section schedule; diagnostics: "
        "LensPosition on /diagnostics, as camera_ros publishes it",
        choices=("focus", "commands", "schedule", "diagnostics"),
    )
    image_transport: str = setting(
        "raw",
        "Image input. raw: sensor_msgs/Image on topic image; compressed: sensor_msgs/CompressedImage (JPEG, PNG) "
        "on image/compressed",
        choices=("raw", "compressed"),
    )
    reliable_input: bool = setting(
        False,
        "Ask for images and focus reliably, of a camera that publishes so: what a lossy network (Wi-Fi) loses is sent "
        "again; false: best effort",
    )
    sample_bits: int = setting(
        0,
        "Bits in use of the samples of 16-bit images, 10, 12 or 14 where the driver does not scale them; 0: of the "
        "brightest sample so far (raw images; compressed ones: 16)",
        low=0,
        high=16,
    )
    image_geometry: str = setting(
        "auto",
        "Geometry of the images. raw: intrinsics K and distortion of camera_info; rectified: intrinsics P, no "
        "distortion; auto: rectified if the topic is named image_rect or image_rect_*",
        choices=("auto", "raw", "rectified"),
    )
    depth_encoding: str = setting(
        "32FC1",
        "Encoding of depth/image. 32FC1: metres, NaN unknown; 16UC1: millimetres, 0 unknown",
        choices=("32FC1", "16UC1"),
        dynamic=True,
    )
    compressed_outputs: bool = setting(
        False,
        "Offer depth/image/compressedDepth (PNG) and all_in_focus/image/compressed (JPEG) too, as the plugins of "
        "image_transport do, for a slow network; computed while subscribed",
    )
    cloud_skip: int = setting(
        1,
        "Point-cloud subsampling step along rows and columns; 1: every pixel",
        unit="px",
        low=1,
        high=64,
        dynamic=True,
    )
    silence_s: float = setting(
        3.0,
        "Time without an image after which /diagnostics reports an error",
        unit="s",
        low=0.1,
        high=3600,
        dynamic=True,
    )
    keep_memory: bool = setting(
        True, "Keep freed memory for the next stack instead of returning it to the system: faster (glibc only)"
    )
    capture_folder: str = setting(
        "captures",
        "Parent folder of the stacks that service ~/capture writes, relative to the working directory; a leading "
        "~ is the home folder",
    )
    capture_megabytes: float = setting(
        10000.0, "Maximum size of all stacks in capture_folder; beyond it ~/capture refuses", unit="MB", low=0, high=1e9
    )
    captures_per_minute: int = setting(
        60, "Maximum number of stacks that ~/capture writes in a minute; 0: none", low=0, high=6000
    )


@dataclass(frozen=True)
class ScheduleConfig:
    """Commanded focus for node.focus_source schedule; commands uses settle_s, exposure_s, others settle_s."""

    focus_diopters: str = setting(
        "",
        "Focus positions in the order of the commands, repeated for ever; comma-separated; required for "
        "node.focus_source schedule",
        unit="1/m",
    )
    trigger: str = setting(
        "frame",
        "Event that moves the lens to its next position. frame: frames_per_step images (start the node before the "
        "camera: the first image received counts as the first position); time: step_s seconds",
        choices=("frame", "time"),
    )
    frames_per_step: int = setting(1, "Images per focus position (trigger frame)", low=1, high=1000)
    rate_hz: float = setting(
        0.0,
        "Frame rate of the camera, by which lost images are detected; required for trigger frame",
        unit="Hz",
        low=0,
        high=1000,
    )
    step_s: float = setting(
        0.1,
        "Time per focus position (trigger time); must exceed settle_s + exposure_s",
        unit="s",
        low=0.0001,
        high=3600,
    )
    start_ns: int = setting(
        0,
        "Stamp of a command to the first position (trigger time); 0: stamp of the first image",
        unit="ns",
        low=0,
        high=2**62,
    )
    settle_s: float = setting(
        0.0,
        "Settling time of the lens after a command, or after a new focus of a driver that does not tell lens_state "
        "(LensPosition on /diagnostics); images exposed during it are dropped; 0: from the calibration of the lens",
        unit="s",
        low=0,
        high=60,
    )
    exposure_s: float = setting(
        0.0,
        "Exposure time, which begins at the image stamp; used where the focus messages report none",
        unit="s",
        low=0,
        high=60,
    )


@dataclass(frozen=True)
class ViewerConfig:
    """Live viewer in the browser."""

    host: str = setting(
        "127.0.0.1",
        "Network address of the page. 127.0.0.1: this machine only; 0.0.0.0: everybody on the network, without a "
        "password",
    )
    port: int = setting(8080, "TCP port of the page; 0: any free port", low=0, high=65535)
    rate_hz: float = setting(8.0, "Maximum update rate of the page", unit="Hz", low=0.1, high=60)
    max_points: int = setting(
        80000, "Maximum number of points shown; larger clouds are subsampled on an even grid", low=100, high=2_000_000
    )
    max_image_px: int = setting(
        640, "Maximum width of the images shown; larger ones are reduced", unit="px", low=64, high=4096
    )
    max_connections: int = setting(8, "Maximum number of pages that may be open at a time", low=1, high=1000)
    focus_frames: int = setting(60, "Number of images in the plot of the focus sweep", low=2, high=1000)


@dataclass(frozen=True)
class SimulationConfig:
    """Rendering of focal stacks from scenes; nodes do not use this section."""

    noise: float = setting(0.004, "Standard deviation of the image noise, as a fraction of full scale", low=0, high=0.5)
    noise_space: str = setting(
        "srgb",
        "Values that noise is added to. srgb: encoded pixel values; linear: linear intensity",
        choices=("srgb", "linear"),
    )
    transfer_curve: str = setting(
        "srgb",
        "Encoding of the images. srgb: sRGB curve; linear: none; blur is computed in linear intensity",
        choices=("srgb", "linear"),
    )
    breathing: bool = setting(False, "Simulate focus breathing of a thin lens")
    layer_step_px: float = setting(
        0.5, "Difference in blur diameter between adjacent depth layers", unit="px", low=0.05, high=10
    )
    max_layers: int = setting(
        128, "Maximum number of depth layers; where more were needed, their spacing grows", low=1, high=1024
    )


@dataclass(frozen=True)
class DdsConfig:
    """DDS transport without a ROS 2 installation; environment variables as in ROS 2."""

    domain_id: int = setting(-1, "ROS domain; -1: ROS_DOMAIN_ID, otherwise 0", low=-1, high=232)
    discovery_range: str = setting(
        "auto",
        "Discovery range; auto: localhost if ROS_LOCALHOST_ONLY is 1, otherwise ROS_AUTOMATIC_DISCOVERY_RANGE, "
        "otherwise localhost",
        choices=("auto", "localhost", "subnet", "off", "system_default"),
    )
    static_peers: str = setting("", "Further hosts to discover, semicolon-separated, in addition to ROS_STATIC_PEERS")
    interface: str = setting("", "Single network interface to use, by name or address; empty: chosen by Cyclone DDS")
    max_message_bytes: int = setting(
        0,
        "Maximum size of a UDP packet, which holds one fragment of a larger message; 0: 65500 within this host, 1400 "
        "where other hosts take part, for the loss of one of its IP fragments costs the whole packet",
        unit="B",
        low=0,
        high=65500,
    )
    receive_buffer_bytes: int = setting(
        16 * 2**20,
        "Socket receive buffer asked of the system, which grants at most net.core.rmem_max",
        unit="B",
        low=2**16,
        high=2**30,
    )
