"""What all tests share: property tests draw the same examples every time, and a busy machine may take its time."""

import os
import signal
import sys

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is imported: dfs_ros.system.cores

import pytest
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

# Before any test imports PyTorch: suites share their machines. Two threads of a small network compute half as much
# again as one.
wait_asleep()
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """PyTorch's number of threads is of the process: an earlier test may have changed it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
