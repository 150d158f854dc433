"""V4L2 cameras of this machine, with their focus controls."""

from __future__ import annotations

from pathlib import Path

from dfs_ros.camera.v4l2.device import FOCUS_ABSOLUTE, control_list, format_list, open_device


def describe_cameras(folder: str | Path = "/dev") -> str:
    """Text on each camera: name, focus range, formats, controls."""
    paths = sorted(Path(folder).glob("video*"), key=lambda path: (len(path.name), path.name))
    if not paths:
        return f"no V4L2 cameras: no {folder}/video*"
    return "\n".join(_describe(path) for path in paths)


def _describe(path: Path) -> str:
    try:
        device = open_device(str(path))
    except OSError as error:
        return f"{error}"
    with device:
        controls = dict(device.controls.items())
        focus = controls.get(FOCUS_ABSOLUTE)
        can = "focus cannot be set"
        if focus is not None:
            can = f"focus_absolute from {focus.minimum} to {focus.maximum} in steps of {focus.step}"
        return "\n".join(
            [
                f"{path}: {device.info.card}: {can}",
                f"  formats: {format_list(device)}",
                f"  controls: {control_list(device)}",
            ]
        )
