"""Depth node as a native ROS 2 lifecycle node.

Inputs: image, camera_info, focus; output: depth. Parameters are the settings that `dfs node --list-settings` prints,
such as `hypotheses.count`. With node.autostart false, the node waits for `ros2 lifecycle set`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dfs_ros.cli.native import native_main

if TYPE_CHECKING:
    from dfs_ros.transport.base import Transport


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node; return its exit status."""
    return native_main("dfs", __doc__ or "", _serve, arguments)


def _serve(transport: Transport) -> None:
    from dfs_ros.cli import node
    from dfs_ros.cli.signals import stopped_by_signals

    with stopped_by_signals(transport, insist=False):
        node.serve(transport)


if __name__ == "__main__":
    sys.exit(main())
