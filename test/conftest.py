"""What all tests share: property tests draw the same examples every time, and a busy machine may take its time."""

import signal

from cuda_host import kernels
from hypothesis import settings
from node_rig import make_rig, plane, rig
from simulation_rig import coarsely_rendered, demo_stack, photos, rendered, texture

from dfs_ros.system.cores import wait_asleep

__all__ = [
    "coarsely_rendered",
    "demo_stack",
    "kernels",
    "make_rig",
    "photos",
    "plane",
    "rendered",
    "rig",
    "texture",
]  # fixtures

settings.register_profile("dfs_ros", derandomize=True, deadline=None)
settings.load_profile("dfs_ros")

# A shell has what it starts in the background ignore Ctrl-C, and processes that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

wait_asleep()  # before any test imports PyTorch: suites share their machines
