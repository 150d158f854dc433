"""Outputs of the depth node: depth, standard deviation, confidence, points, all-in-focus image."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from dfs_ros.config import NodeConfig
from dfs_ros.messages.compressed import compressed_depth_message, compressed_message
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    COMPRESSED,
    IMAGE,
    POINTS,
    Message,
    camera_info_message,
    depth_message,
    image_message,
    points_message,
)
from dfs_ros.messages.motion import ODOMETRY, odometry_message
from dfs_ros.optics.pinhole import Intrinsics, intrinsics, points_from_depth
from dfs_ros.transport.base import Publisher, Transport
from dfs_ros.types import DepthResult

TOPICS = {
    "depth/camera_info": CAMERA_INFO,
    "depth/image": IMAGE,
    "depth/sigma": IMAGE,
    "depth/confidence": IMAGE,
    "depth/points": POINTS,
    "all_in_focus/camera_info": CAMERA_INFO,
    "all_in_focus/image": IMAGE,
}
COMPRESSED_TOPICS = {"depth/image/compressedDepth": COMPRESSED, "all_in_focus/image/compressed": COMPRESSED}
"""Images as image_transport's plugins publish them, with the setting `node.compressed_outputs`."""
SHARP = frozenset({"all_in_focus/image", "all_in_focus/image/compressed"})
"""Topics of the all-in-focus image."""
ODOMETRY_TOPIC = "~/odometry"
"""Velocity of the camera, with the setting `motion.odometry`."""


class Outputs:
    """Publishers of the depth node."""

    def __init__(self, transport: Transport) -> None:
        self._guard = transport.guard
        config = transport.parameters.config
        self._fixed_frame = config.motion.frame
        topics = TOPICS | ({ODOMETRY_TOPIC: ODOMETRY} if config.motion.odometry else {})
        self._publishers: dict[str, Publisher] = {
            topic: transport.create_publisher(topic, kind) for topic, kind in topics.items()
        }
        if config.node.compressed_outputs:
            for topic, kind in COMPRESSED_TOPICS.items():
                base, _, plugin = topic.rpartition("/")  # a remapped image takes them along
                self._publishers[topic] = transport.create_publisher(f"{transport.resolve(base)}/{plugin}", kind)

    def wanted(self) -> frozenset[str]:
        """Topics with subscribers."""
        return frozenset(topic for topic, publisher in self._publishers.items() if publisher.subscription_count())

    def publish(
        self,
        result: DepthResult,
        topics: Collection[str],
        frame_id: str,
        settings: NodeConfig,
        distortion: Iterable[float] = (),
    ) -> None:
        """Publish `topics` of a result, all with its stamp."""
        stamp, size = result.stamp_ns, result.depth_m.shape
        pinhole = intrinsics(result.camera, (size[0], size[1]))
        motion: Mapping[str, Any] = result.report.get("motion", {"velocity_m_s": []})

        def make(topic: str) -> Message:
            if topic.endswith("camera_info"):
                return camera_info_message(pinhole, (size[0], size[1]), stamp, frame_id, distortion)
            if topic == "depth/image":
                return depth_message(result.depth_m, stamp, frame_id, settings.depth_encoding)
            if topic == "depth/image/compressedDepth":
                return compressed_depth_message(result.depth_m, stamp, frame_id, settings.depth_encoding)
            if topic == "all_in_focus/image/compressed":
                return compressed_message(result.all_in_focus, stamp, frame_id)
            if topic == "depth/sigma":
                return depth_message(result.sigma_m, stamp, frame_id)
            if topic == "depth/confidence":
                return depth_message(result.confidence, stamp, frame_id)
            if topic == "depth/points":
                return cloud_message(result, pinhole, frame_id, settings.cloud_skip)
            if topic == ODOMETRY_TOPIC:
                velocity, covariance = np.array(motion["velocity_m_s"]), np.reshape(motion["covariance_m2_s2"], (3, 3))
                return odometry_message(stamp, self._fixed_frame, frame_id, velocity, covariance)
            return image_message(result.all_in_focus, stamp, frame_id)

        for topic, publisher in self._publishers.items():
            if topic in topics and (topic != ODOMETRY_TOPIC or motion["velocity_m_s"]):
                with self._guard(f"{publisher.topic} publication"):
                    publisher.publish(make(topic))


def cloud_message(result: DepthResult, pinhole: Intrinsics, frame_id: str, skip: int = 1) -> Message:
    """Make the organised, coloured PointCloud2 of every `skip`-th pixel each way."""
    depth_m = np.ascontiguousarray(result.depth_m[::skip, ::skip])
    fewer = Intrinsics(*(value / skip for value in pinhole))
    rgb = np.ascontiguousarray(result.all_in_focus[::skip, ::skip])
    return points_message(points_from_depth(depth_m, fewer), result.stamp_ns, frame_id, rgb)
