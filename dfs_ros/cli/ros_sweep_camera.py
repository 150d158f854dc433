"""Focus-sweeping camera as a native ROS 2 lifecycle node.

Publishes image, camera_info and focus. The parameters of section camera choose the source;
`dfs camera --list-settings` prints all.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dfs_ros.cli.native import native_main

if TYPE_CHECKING:
    from dfs_ros.transport.base import Transport


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the camera node; return the exit status of the process."""
    return native_main("dfs_camera", __doc__ or "", _serve, arguments)


def _serve(transport: Transport) -> None:
    from dfs_ros.cli import camera
    from dfs_ros.cli.participants import make_source
    from dfs_ros.cli.signals import stopped_by_signals

    config = transport.parameters.config
    source = make_source(config)
    with stopped_by_signals(transport, insist=False):
        camera.serve(transport, source, config)


if __name__ == "__main__":
    sys.exit(main())
