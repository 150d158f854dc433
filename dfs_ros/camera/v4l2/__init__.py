"""Camera and focus motor by V4L2."""

from dfs_ros.camera.v4l2.source import V4l2Source

__all__ = ["V4l2Source"]
