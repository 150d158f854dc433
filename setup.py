"""Packaging for pip; a ROS 2 workspace builds the same root with CMakeLists.txt."""

import sys
from pathlib import Path

from setuptools import find_packages, setup


def shared(folder: str) -> tuple[str, list[str]]:
    """Files of a top-level folder, installed where `dfs_ros.system.folders.share_folder` looks for them."""
    return f"share/dfs_ros/{folder}", [str(path) for path in sorted(Path(folder).iterdir()) if path.is_file()]


# A wheel and a colcon build bring what runs on a robot; research, benchmarks and tools stay in the repository.
PACKAGES = ["dfs_ros", "dfs_ros.*"]
if {"editable_wheel", "develop"} & set(sys.argv):
    PACKAGES += ["dfs_research", "dfs_research.*", "benchmarks", "benchmarks.*", "tools", "tools.*"]

setup(
    name="dfs_ros",
    version="0.2.0",
    description="Metric depth from focus-sweeping cameras, for ROS 2 robots",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=PACKAGES),
    package_data={"dfs_ros": ["py.typed", "**/*.cu", "**/*.cuh"]},
    data_files=[shared("models"), shared("msg")],
    python_requires=">=3.10",
    install_requires=[
        "numpy>=1.24",
        "scipy>=1.10",
        "opencv-python-headless>=4.8,<5",  # cv_bridge is built against OpenCV 4
        "pillow>=10.1",  # its own scalable font
        "pyyaml>=6",
        "tqdm>=4.64",
        "torch>=2.1",
        "safetensors>=0.4",
        "psutil>=5.9",
        "matplotlib>=3.6",
        'cyclonedds>=11; platform_machine == "x86_64"',
        "rosbags>=0.11",
        "mcap>=1.2",  # writes bags with CRCs
        "viser>=1.1,<2",  # movable panels
    ],
    extras_require={
        # Launches and compiles the CUDA kernels; part of PyTorch for CUDA from 2.10 on. Of the same CUDA as PyTorch.
        "cuda12": ["cuda-bindings>=12.9.4,<13"],
        "cuda13": ["cuda-bindings>=13.0.3,<14"],
        "onnx": ["onnx>=1.14", "onnxruntime>=1.16"],
        "datasets": ["h5py>=3.8"],  # NYU Depth V2 and DDFF 12-scene are HDF5 files
        "v4l2": ['linuxpy>=0.20; platform_system == "Linux"'],
        "completion": ["argcomplete>=3"],  # of `dfs` in the shell
        "docs": ["sphinx>=7", "myst-parser>=3", "furo"],
        "oak": ["depthai>=3,<4"],
        # Needs libcamera's Python bindings, which are a package of the system: python3-picamera2 brings both.
        "picamera2": ['picamera2>=0.3.17; platform_system == "Linux"'],
        "optotune": ["pyserial>=3.5"],
        "test": [
            "argcomplete>=3",
            'linuxpy>=0.20; platform_system == "Linux"',
            "pyserial>=3.5",
            "pytest>=7",
            "pytest-timeout",
            "pytest-xdist>=3.7",  # `make test` runs two test files at a time
            "hypothesis>=6",
            "h5py>=3.8",
            "playwright>=1.40",  # drives the system's Chromium, where there is one
            "scikit-image>=0.20",
            "xacro>=2",
            "pypdfium2>=4",  # renders the sheets of calibration boards
            "ruff",
            "mypy",
            "vermin>=1.6",  # holds every file to Python 3.10
            "types-PyYAML",
            'cuda-bindings>=13.0.3,<14; platform_system == "Linux"',
            'nvidia-cuda-nvrtc>=13; platform_system == "Linux"',  # compiles the CUDA kernels, without a GPU
            "onnx>=1.14",
            "onnxruntime>=1.16",
            # Builds engines without a GPU; 96 MB.
            'tensorrt-rtx>=1.4; platform_system == "Linux" and platform_machine == "x86_64"',
        ],
    },
    entry_points={"console_scripts": ["dfs = dfs_ros.cli.main:main"]},
)
