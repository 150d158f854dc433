"""Launch camera, depth node, static transform of the optical frame and, optionally, RViz.

ros2 launch dfs_ros depth.launch.py                                  simulated camera: depth without hardware
ros2 launch dfs_ros depth.launch.py rviz:=true                       the same with RViz
ros2 launch dfs_ros depth.launch.py camera:=stack stack:=FOLDER      images of a focal stack, repeated
ros2 launch dfs_ros depth.launch.py camera:=v4l2 lens_calibration:=FILE    UVC camera with a focus control
ros2 launch dfs_ros depth.launch.py camera:=picamera2 lens_calibration:=FILE      Raspberry Pi camera; likewise oak
ros2 launch dfs_ros depth.launch.py camera:=camera_ros lens_calibration:=FILE     Raspberry Pi camera, driver and sweep
ros2 launch dfs_ros depth.launch.py camera:=usb_cam video_device:=/dev/video0 lens_calibration:=FILE
ros2 launch dfs_ros depth.launch.py camera:=rgbd rgbd:=FOLDER        virtual lens over colour and depth; without rgbd,
                                                                     over topics, as of a simulator
ros2 launch dfs_ros depth.launch.py camera:=none image:=/cam/image_raw camera_info:=/cam/camera_info focus:=/cam/focus
                                                                     camera of another driver
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ament_index_python.packages import get_package_share_directory
from launch.action import Action
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, RegisterEventHandler, TimerAction
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription

REFUSED = 2
"""Exit status of a node that refuses its settings; starting it again would not help."""
FIRST_DELAY_S, DELAY_GROWTH, LONGEST_DELAY_S, MOST_RESTARTS = 0.1, 3.0, 60.0, 10
STABLE_S = 60.0
"""Time alive after which earlier deaths no longer count."""


class Driver(NamedTuple):
    """Driver of another package, its topics, and how its lens is swept."""

    package: str
    executable: str
    folder: str
    frame_parameter: str
    sweeper: str


DRIVERS = {
    "camera_ros": Driver("camera_ros", "camera_node", "camera/", "frame_id", "camera_ros"),
    "v4l2_camera": Driver("v4l2_camera", "v4l2_camera_node", "", "camera_frame_id", "v4l2"),
    "usb_cam": Driver("usb_cam", "usb_cam_node_exe", "", "frame_id", "v4l2"),
}
OWN_SWEEPS = ("v4l2", "picamera2", "oak")
"""Cameras whose lens the camera node of this package sweeps."""
FOCUS_SOURCES = {
    "camera_ros": "diagnostics",
    "v4l2": "commands",
    "parameter": "commands",
    "topic": "commands",
    "optotune": "commands",
}
SWEPT_SPAN_S = 20.0
"""Longest duration of a sweep by commands: lenses that settle slowly take longer than others' sweeps."""

SHARE = Path(get_package_share_directory("dfs_ros"))
YES_NO = ["true", "false"]


def argument(name: str, default: str, description: str, choices: list[str] | None = None) -> DeclareLaunchArgument:
    return DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)


ARGUMENTS = [
    argument(
        "camera",
        "sim",
        "Camera. sim: simulated; stack: images of a focal stack; v4l2: UVC camera; picamera2: Raspberry Pi camera; "
        "oak: OAK of Luxonis; rgbd: virtual lens over colour and registered depth; camera_ros, v4l2_camera, usb_cam: "
        "driver of that package, whose lens is swept; none: that of another driver, which runs",
        ["sim", "stack", *OWN_SWEEPS, "rgbd", *DRIVERS, "none"],
    ),
    argument("driver_params", "", "Parameter file of the driver (camera:=camera_ros, v4l2_camera, usb_cam)"),
    argument(
        "sweeper",
        "",
        "Way to sweep the lens of another driver, as sweeper.driver; none: it is swept; empty: as the camera needs it",
        ["", "none", *FOCUS_SOURCES],
    ),
    argument("sweeper_node", "camera", "Node whose parameters move the lens (sweeper:=camera_ros, parameter)"),
    argument("sweeper_port", "", "Serial port of the lens driver (sweeper:=optotune); empty: from params_file"),
    argument("stack", "", "Folder of the focal stack (camera:=stack)"),
    argument("rgbd", "", "Folder (TUM or ScanNet layout) or bag (camera:=rgbd); empty: live topics"),
    argument("rgbd_calibration", "", "Intrinsics file of the folder (camera:=rgbd), as camera_calibration writes it"),
    argument("rgbd_color", "", "Topic of the sharp colour images (camera:=rgbd); empty: from params_file"),
    argument("rgbd_depth", "", "Topic of their registered depth (camera:=rgbd); empty: from params_file"),
    argument("rgbd_camera_info", "", "Topic of their intrinsics (camera:=rgbd); empty: from params_file"),
    argument("video_device", "", "Device file, number (picamera2) or id (oak) of the camera; empty: from params_file"),
    argument("lens_calibration", "", "Lens calibration of `dfs calibrate lens`; empty: from params_file"),
    argument("lens_table", "", "Older name of lens_calibration"),
    argument("namespace", "", "Namespace of nodes and topics"),
    argument("params_file", str(SHARE / "config" / "parameters.yaml"), "Parameter file of the nodes"),
    argument("network", "", "Network over the cost volume: none or a model; empty: from params_file"),
    argument("runner", "", "Inference engine: auto, torch, onnx, tensorrt, tensorrt_rtx; empty: from params_file"),
    argument("device", "", "Device of cost volume and network: auto, cpu, cuda; empty: from params_file"),
    argument("image", "image", "Topic of the images (sensor_msgs/Image)"),
    argument("camera_info", "camera_info", "Topic of the intrinsics (sensor_msgs/CameraInfo)"),
    argument("focus", "focus", "Topic of the focus of each image (dfs_ros/FrameFocus)"),
    argument("publish_tf", "true", "Publish the static transform from camera_frame to optical_frame", YES_NO),
    argument("camera_frame", "camera_link", "Body frame of the camera: x forward, y left, z up"),
    argument("optical_frame", "camera_optical_frame", "Optical frame of the images: x right, y down, z forward"),
    argument(
        "autostart",
        "true",
        "Configure and activate the nodes at start; false: wait for `ros2 lifecycle set`; true: from params_file",
        YES_NO,
    ),
    argument(
        "respawn", "true", "Restart a node that has died, not one that ended over its settings (status 2)", YES_NO
    ),
    argument("use_sim_time", "false", "Use the time of topic /clock", YES_NO),
    argument("log_level", "info", "Minimum level of log messages", ["debug", "info", "warn", "error", "fatal"]),
    argument("rviz", "false", "Start RViz with depth, point cloud and all-in-focus image", YES_NO),
    argument("rviz_config", str(SHARE / "rviz" / "depth.rviz"), "Configuration file of RViz"),
]


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])


def nodes(context: LaunchContext) -> list[Action]:
    """Nodes for the given arguments."""
    values = {each.name: LaunchConfiguration(each.name).perform(context) for each in ARGUMENTS}
    if values["camera"] == "stack" and not values["stack"]:
        raise ValueError("camera:=stack: expected stack:=FOLDER, the folder of a focal stack; received none")
    if not Path(values["params_file"]).is_file():  # ROS would go on without it
        raise FileNotFoundError(f"params_file:={values['params_file']}: no such file")
    driver = DRIVERS.get(values["camera"])
    if driver is not None:
        for name, own in (("image", "image_raw"), ("camera_info", "camera_info")):
            values[name] = driver.folder + own if values[name] == name else values[name]
    sweeper = values["sweeper"] or (driver.sweeper if driver is not None else "none")
    topics = [(name, values[name]) for name in ("image", "camera_info", "focus") if values[name] != name]
    calibration = values["lens_calibration"] or values["lens_table"]
    estimation: dict[str, Any] = {
        "lens.calibration": calibration,
        "network.name": values["network"],
        "network.runner": values["runner"],
        "processing.device": values["device"],
    }
    respawn = values["respawn"] == "true"
    if values["camera"] in OWN_SWEEPS:
        estimation["stack.max_span_s"] = SWEPT_SPAN_S
    if sweeper != "none":
        estimation |= {"node.focus_source": FOCUS_SOURCES[sweeper], "stack.max_span_s": SWEPT_SPAN_S}
    started = kept_alive(partial(own_node, values, "depth_node", "dfs", topics, estimation), respawn)
    if driver is not None:
        started += kept_alive(partial(driver_node, values, driver), respawn)
    elif values["camera"] != "none":
        source = {
            "camera.source": values["camera"],
            "camera.stack": values["stack"],
            "v4l2.device": values["video_device"] if values["camera"] == "v4l2" else "",
            "reporting.device": values["video_device"] if values["camera"] in OWN_SWEEPS[1:] else "",
            "rgbd.path": values["rgbd"],
            "rgbd.calibration": values["rgbd_calibration"],
            "rgbd.color": values["rgbd_color"],
            "rgbd.depth": values["rgbd_depth"],
            "rgbd.camera_info": values["rgbd_camera_info"],
            "lens.calibration": calibration,
            "camera.frame_id": values["optical_frame"],
            "stack.max_span_s": estimation.get("stack.max_span_s", 0.0),
        }
        started += kept_alive(partial(own_node, values, "sweep_camera", "dfs_camera", topics, source), respawn)
    if sweeper != "none":
        lens = {
            "sweeper.driver": sweeper,
            "sweeper.node": values["sweeper_node"],
            "sweeper.port": values["sweeper_port"],
            "v4l2.device": values["video_device"],
            "lens.calibration": calibration,
            "camera.frame_id": values["optical_frame"],
            "stack.max_span_s": SWEPT_SPAN_S,
        }
        started += kept_alive(partial(own_node, values, "focus_sweeper", "dfs_sweeper", topics, lens), respawn)
    if values["publish_tf"] == "true":
        started.append(optical_transform(values))
    if values["rviz"] == "true":
        started.append(rviz(values))
    return started


def kept_alive(make: Callable[[], Node], respawn: bool, deaths: int = 0) -> list[Action]:
    """Node, with a handler that starts it again, with a growing delay, after it has died.

    launch's own `respawn` would also restart a node that refuses its settings (status 2) or was told to stop (0), and
    knows one delay.
    """
    node, began = make(), time.monotonic()

    def again(event: ProcessExited, context: LaunchContext) -> list[Action]:
        if context.is_shutdown or event.returncode in (0, REFUSED):
            return []
        recent = 0 if time.monotonic() - began > STABLE_S else deaths
        if recent >= MOST_RESTARTS:
            return [LogInfo(msg=f"{event.process_name} died {recent + 1} times in a row and is not started again")]
        delay_s = min(FIRST_DELAY_S * DELAY_GROWTH**recent, LONGEST_DELAY_S)
        told = LogInfo(msg=f"{event.process_name} died (status {event.returncode}): started again in {delay_s:g} s")
        return [told, TimerAction(period=delay_s, actions=kept_alive(make, respawn, recent + 1))]

    handlers = [RegisterEventHandler(OnProcessExit(target_action=node, on_exit=again))] if respawn else []
    return [*handlers, node]


def own_node(
    values: dict[str, str], executable: str, name: str, topics: list[tuple[str, str]], parameters: dict[str, Any]
) -> Node:
    """Node of this package; launch arguments override the parameter file."""
    given: dict[str, Any] = {
        key: ParameterValue(each, value_type=type(each)) for key, each in parameters.items() if each
    }
    if values["autostart"] == "false":
        given["node.autostart"] = False
    return Node(
        package="dfs_ros",
        executable=executable,
        name=name,
        namespace=values["namespace"],
        parameters=[
            values["params_file"],
            {"use_sim_time": values["use_sim_time"] == "true", **given},
        ],
        remappings=topics,
        ros_arguments=["--log-level", f"{name}:={values['log_level']}"],
        output="screen",
    )


def driver_node(values: dict[str, str], driver: Driver) -> Node:
    """Driver of another package, named camera."""
    parameters: dict[str, Any] = {driver.frame_parameter: values["optical_frame"]}
    if values["video_device"] and driver.sweeper == "v4l2":
        parameters["video_device"] = values["video_device"]
    return Node(
        package=driver.package,
        executable=driver.executable,
        name="camera",
        namespace=values["namespace"],
        parameters=[*filter(None, [values["driver_params"]]), parameters],
        output="screen",
    )


def optical_transform(values: dict[str, str]) -> Node:
    """Static transform from the body frame of REP 103 (x forward) to its optical frame (z forward)."""
    rotation = {"--qx": "-0.5", "--qy": "0.5", "--qz": "-0.5", "--qw": "0.5"}
    frames = {"--frame-id": values["camera_frame"], "--child-frame-id": values["optical_frame"]}
    return Node(
        package="tf2_ros",
        executable="static_transform_publisher",
        name="optical_frame",
        namespace=values["namespace"],
        arguments=[text for option in (rotation | frames).items() for text in option],
    )


def rviz(values: dict[str, str]) -> Node:
    """RViz, with the absolute topics of its file remapped to relative ones, for any namespace."""
    shown = ["depth/image", "depth/camera_info", "depth/points", "depth/sigma", "all_in_focus/image"]
    return Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        namespace=values["namespace"],
        arguments=["-d", values["rviz_config"], "-f", values["camera_frame"]],
        parameters=[{"use_sim_time": values["use_sim_time"] == "true"}],
        remappings=[(f"/{topic}", topic) for topic in shown],
    )
