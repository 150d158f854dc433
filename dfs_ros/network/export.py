"""Export of networks as ONNX, the input of all runners but torch.

Graphs are strongly typed. Inputs, outputs, the energies' minimum, the last line of the network and its softmax are
float32 in every variant; in fp16 the convolutions between are float16. Files are made on demand and cached, named by
the hash of weights and recipe, so that they cannot disagree with the weights.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dfs_ros.system.cache import keep, read_kept
from dfs_ros.system.folders import cache_folder

if TYPE_CHECKING:
    from torch import Tensor

    from dfs_ros.network.light import LightNetwork

OPSET = 17
"""Oldest opset that the network allows: TensorRT 10.3 and ONNX Runtime of 2023 read it."""

INPUTS = ("energy", "smoothed", "image")
OUTPUT = "probability"
PRECISIONS = ("fp32", "fp16")
TOLERANCE = {"fp32": 1e-3, "fp16": 5e-3}
"""Largest acceptable :func:`difference` from PyTorch; fp16 in ONNX Runtime comes to 1e-4."""
IMAGE_CHANNELS = 4


@dataclass(frozen=True)
class Shape:
    """Hypotheses of a volume at half size; height and width of its image, multiples of `DOWNSAMPLING`."""

    hypotheses: int
    height: int
    width: int

    def __post_init__(self) -> None:
        from dfs_ros.network.light import DOWNSAMPLING

        if self.hypotheses < 2 or self.height < 1 or self.width < 1:
            raise ValueError(f"shape: expected 2 or more hypotheses and a size above 0, received {self}")
        if self.height % DOWNSAMPLING or self.width % DOWNSAMPLING:
            raise ValueError(
                f"shape: expected height and width in multiples of {DOWNSAMPLING}, "
                f"received {self.height} x {self.width}; `Network` pads images of any size"
            )

    def of_inputs(self) -> dict[str, tuple[int, int, int, int]]:
        """Shape of every input, with its batch of 1."""
        volume = (1, self.hypotheses, self.height // 2, self.width // 2)
        return {"energy": volume, "smoothed": volume, "image": (1, IMAGE_CHANNELS, self.height, self.width)}

    def __str__(self) -> str:
        return f"{self.hypotheses}x{self.height}x{self.width}"


def export_onnx(module: LightNetwork, shape: Shape, precision: str = "fp32", dynamic: bool = False) -> bytes:
    """Export a network as ONNX. The same arguments give the same bytes.

    Parameters
    ----------
    module
        The network, which is not changed.
    shape
        The only shape the graph takes; with `dynamic` an example, and any other is taken, too.

    Raises ValueError for an unknown precision, ImportError if this PyTorch cannot export.
    """
    import torch

    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, received {precision!r}")
    module = copy.deepcopy(module).cpu().float().eval()
    if precision == "fp16":
        halve(module)
    options: dict[str, Any] = {}
    if dynamic:
        volume = {1: "hypotheses", 2: "half_height", 3: "half_width"}
        image = {2: "height", 3: "width"}
        options["dynamic_axes"] = {"energy": volume, "smoothed": volume, "image": image, OUTPUT: volume}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False  # this exporter needs no further packages
    file = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, and warnings of sizes that it traces anyway
        torch.onnx.export(
            module,
            tuple(torch.zeros(size) for size in shape.of_inputs().values()),
            file,  # type: ignore[arg-type]  # a buffer does since always
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            opset_version=OPSET,
            **options,
        )
    return file.getvalue()


def onnx_of(
    module: LightNetwork, shape: Shape, precision: str = "fp32", dynamic: bool = False, folder: Path | None = None
) -> bytes:
    """:func:`export_onnx` with the cache in `folder`."""
    folder = folder or cache_folder("onnx")
    what = "dynamic" if dynamic else str(shape)
    file = folder / f"{_digest(module)}-{what}-{precision}.onnx"
    model = read_kept(file)
    if model is None:
        model = export_onnx(module, shape, precision, dynamic)
        keep(file, model)
    return model


def dynamic_name(network: str, precision: str) -> str:
    """Name of the ONNX file for any shape, as in models/."""
    return f"{network}-dynamic-{precision}.onnx"


def golden_inputs(shape: Shape, seed: int = 0) -> list[NDArray[np.float32]]:
    """Test inputs of a curved surface with noise, for the comparison of runners."""
    rng = np.random.default_rng(seed)
    d, h, w = shape.hypotheses, shape.height, shape.width
    y, x = np.mgrid[: h // 2, : w // 2].astype(np.float32) / np.float32(max(h, w) // 2)
    surface = (d - 1) * (0.5 + 0.4 * np.sin(5 * x + 1) * np.cos(4 * y))
    valley = np.minimum(10.0 / d * np.abs(np.arange(d, dtype=np.float32)[:, None, None] - surface), 4.0)
    energy, smoothed = (valley + rng.normal(0, sigma, valley.shape) for sigma in (0.3, 0.05))
    stripes = np.sin(20 * np.arange(w) / max(h, w))
    image = np.clip(0.5 + 0.3 * stripes + rng.normal(0, 0.05, (IMAGE_CHANNELS, h, w)), 0, 1)
    return [np.ascontiguousarray(array, np.float32) for array in (energy, smoothed, image)]


def difference(probability: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Largest difference of depth between two probabilities, relative to the range.

    NaN anywhere in `probability` gives infinity. Depth is counted in hypotheses.
    """
    from dfs_ros.depth.readout import median_and_spread

    if probability.shape != reference.shape or not np.isfinite(probability).all():
        return float("inf")
    # An all-zero probability has no valid median.
    if np.abs(probability.sum(axis=0) - 1.0).max() > 0.01:
        return float("inf")
    found, expected = median_and_spread(probability)[0], median_and_spread(reference)[0]
    return float(np.abs(found - expected).max() / (len(reference) - 1))


def halve(module: LightNetwork) -> None:
    """Convert weights and convolutions to float16; `light.py` casts in between."""

    def cast(_module: object, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(tensor.half() for tensor in inputs)

    module.half()
    module.stem.register_forward_pre_hook(cast)
    module.image.register_forward_pre_hook(cast)


def _digest(module: LightNetwork) -> str:
    """Digest of weights, architecture, code of network and export, and exporter."""
    import torch

    from dfs_ros.network import light

    digest = hashlib.sha256(f"{torch.__version__} {module.architecture}".encode())
    for source in (light.__file__, __file__):
        digest.update(Path(source).read_bytes())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
