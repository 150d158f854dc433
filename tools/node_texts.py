"""Texts for the pages of the nodes: content of topics, effect of services, meaning of diagnostic values."""

from __future__ import annotations

from collections.abc import Mapping

from dfs_ros.messages.node_status import FAULTS
from dfs_ros.stacks.assembler import EVENTS, OUTCOMES

CONTENT: Mapping[str, str] = {
    "image": "Images: rgb8, bgr8, rgba8, mono8, 16 bit, Bayer or YUV",
    "image/compressed": "Images as JPEG or PNG",
    "camera_info": "Intrinsics of the images, at their size",
    "focus": "Focus of the image of equal stamp, in dioptres (1/m, 0 = infinity), and the lens",
    "imu": "Rotation of the camera, from a gyroscope, if there is one",
    "/tf": "Motion of the camera, if there is any",
    "/tf_static": "Mount of the camera and of the gyroscope",
    "/diagnostics": "Diagnostics, see below; as input: LensPosition as camera_ros publishes it",
    "depth/image": "Depth along the optical axis: 32FC1 metres, NaN unknown; or 16UC1 millimetres, 0 unknown "
    "(`node.depth_encoding`)",
    "depth/sigma": "Standard deviation of the depth, 32FC1 metres",
    "depth/confidence": "Share of the misfit that the best depth removes, 32FC1, 0 to 1, of every pixel",
    "depth/points": "Organised point cloud, fields x y z rgb, optical frame",
    "depth/camera_info": "Intrinsics of the depth image",
    "all_in_focus/image": "Image that is sharp at every depth, rgb8",
    "all_in_focus/camera_info": "Its intrinsics",
    "depth/image/compressedDepth": "Depth as image_transport writes it: PNG of 16 bit over the range of the image",
    "all_in_focus/image/compressed": "Sharp image as JPEG",
    "~/odometry": "[Velocity of the camera](../motion.md#velocity) within the sweep",
    "true_depth/image": "True depth of each image, 32FC1 metres, where the source knows it",
    "lens_position": "Lens position for a driver of your own",
    "rgbd/color": "Sharp colour images",
    "rgbd/depth": "Their registered depth",
    "rgbd/camera_info": "Intrinsics of both",
}
"""Content of each topic."""

SERVICES: Mapping[str, str] = {
    "~/capture": "write the newest stack (the next one, where nobody subscribes) to a new folder in "
    "`node.capture_folder` ([format](../formats.md#focal-stack1))",
}
"""Effect of each service but those that every node has."""

VALUES: Mapping[str, str] = {
    "depth": "ERROR: no images for `node.silence_s`, images that form no stack, or stacks without depth. WARN: lost or "
    "late images, warnings of the estimator, hardly any pixel with depth, a network in preparation. Each image has one "
    f"outcome: {', '.join(f'`{name}`' for name in OUTCOMES)}.",
    "motion": "WARN: stacks lack poses. Values: [Moving cameras](../motion.md#diagnostics).",
    "transport": "Counts of each topic. WARN: messages were dropped, or work failed, in the last second.",
    "camera": "WARN: the camera is slower than `camera.rate_hz`. Sources with a device add counts of missing images.",
    "sweeper": "WARN: no command yet.",
    "state": "state of the node in words",
    "images_hz": "rate of the images, over 10 s",
    "depth_hz": "rate of the depth images, over 10 s",
    "published": "depth images published",
    "superseded": "stacks skipped because a newer one was complete",
    "latency_s": "mean time from the stamp of a stack's newest image to its depth, over 10 s",
    "latency_max_s": "maximum of the same",
    "share_with_depth": "share of pixels with depth",
    "aperture": "scale of the effective aperture: in use, and as measured",
    "sigma PART": "share of the standard deviation of the depth: local, aperture, gain, offset",
    "seconds STEP": "time of each step of the newest stack",
    "network": "network over the cost volume, and the engine that runs it",
    "cost volume": "method of the cost volume",
    "hypotheses": "number of depth hypotheses",
    "frames": "frames known from transforms",
    "TOPIC received": "messages that arrived",
    "TOPIC dropped": "messages displaced by newer ones while the node was busy, or lost by the network",
    "TOPIC malformed": "messages that could not be decoded",
    "TOPIC refused": "messages whose content makes no sense",
    "TOPIC callback_p99_ms": "time that the node took for a message, 99th percentile",
    "TOPIC callback_cpu_p99_ms": "processor time of the same",
    "TOPIC published": "messages sent",
    "TOPIC undelivered": "messages that could not be sent",
    "sent_hz": "rate of the images sent, over 3 s",
    "wanted_hz": "`camera.rate_hz`",
    "commands": "commands given to the lens",
    **OUTCOMES,
    **EVENTS,
    **FAULTS,
}
"""Meaning of each status, and of each of its values."""
