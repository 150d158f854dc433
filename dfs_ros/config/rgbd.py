"""Settings of the virtual lens over colour and depth."""

from __future__ import annotations

from dataclasses import dataclass

from dfs_ros.config.setting import setting


@dataclass(frozen=True)
class RgbdConfig:
    """Virtual focus-swept lens: images from colour and registered depth (camera.source rgbd)."""

    path: str = setting(
        "",
        "Folder in the layout of TUM RGB-D or ScanNet, or a bag; repeated for ever; empty: the topics below, live",
    )
    color: str = setting("rgbd/color", "Topic of the sharp colour images (sensor_msgs/Image)")
    depth: str = setting(
        "rgbd/depth", "Topic of the depth images of the same view (sensor_msgs/Image, 32FC1 metres or 16UC1 mm)"
    )
    camera_info: str = setting("rgbd/camera_info", "Topic of the intrinsics of both (sensor_msgs/CameraInfo)")
    calibration: str = setting(
        "",
        "Intrinsics file of a folder, as camera_calibration writes it; empty: those of ScanNet's folder intrinsic, or "
        "525 px and the image centre of 640 x 480 TUM images",
    )
    depth_unit_m: float = setting(
        0.0,
        "Depth of value 1 in the depth images of a folder; 0: 0.0002 m for TUM, 0.001 m for ScanNet",
        unit="m",
        low=0,
        high=1,
    )
    match_tolerance_s: float = setting(
        0.02, "Maximum stamp difference of colour, depth and pose", unit="s", low=0, high=10
    )
    focal_length_m: float = setting(0.05, "Focal length of the virtual lens", unit="m", low=1e-4, high=2)
    f_number: float = setting(1.4, "F-number of the virtual lens", low=0.1, high=128)
    focus_diopters: str = setting("2.0,1.3,0.8,0.4,0.1", "Focus positions of a sweep, comma-separated", unit="1/m")
    max_megapixels: float = setting(
        0.077,
        "Maximum size of the images sent; larger ones are reduced. Rendering 320 x 240 takes 0.3 to 0.7 s of a core",
        unit="Mpx",
        low=0.001,
        high=50,
    )
