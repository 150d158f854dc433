"""Sweeper of the lens of a camera that another driver runs, as a native ROS 2 lifecycle node.

Publishes its commands on focus. The parameters of section sweeper choose the driver and the positions;
`dfs sweeper --list-settings` prints all.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dfs_ros.cli.native import native_main

if TYPE_CHECKING:
    from dfs_ros.transport.base import Transport


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweeper; return its exit status."""
    return native_main("dfs_sweeper", __doc__ or "", _serve, arguments)


def _serve(transport: Transport) -> None:
    from dfs_ros.cli import sweeper
    from dfs_ros.cli.signals import stopped_by_signals

    with stopped_by_signals(transport, insist=False):
        sweeper.serve(transport)


if __name__ == "__main__":
    sys.exit(main())
