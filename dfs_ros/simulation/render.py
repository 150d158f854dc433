"""Thin-lens rendering of focal stacks from a photo and its depth, with occlusion.

The scene is cut into layers of nearly equal blur. Each layer is blurred by its disk and laid over the farther ones, far to
near, in linear light (Ikoma et al., ICCP 2021, eq. 5 to 8):

    W_k = visible pixels of layer k (+ a little of what is guessed to lie hidden behind nearer layers)
    E_k = blur_k(W_0 + ... + W_k)           how much of the aperture looks at layers up to k
    out = blur_k(W_k I) / E_k + (1 - blur_k(W_k) / E_k) out

On a continuous surface the layers' shares add up to one, so no seams show where it is cut. At a depth edge the near side
blurs over the far side, and the far side, sharp or blurred, never takes up colour of the near side.

The blur is a convolution (by FFT, padded) with the rasterised disk of `optics.disk_psf`, not with the analytic transfer
function: that one rings at the hard edges of a layer, a rasterised disk is never negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from dfs_ros import optics
from dfs_ros.config import SimulationConfig
from dfs_ros.types import Camera, FocalStack

Image = NDArray[np.float32]

RENDERER_VERSION = 1
"""Raised whenever the same input gives other images, so that cached stacks are rendered again."""

_DEFAULT = SimulationConfig()
_HIDDEN_WEIGHT = 0.01  # guessed pixels count this much: only where the aperture sees almost nothing of what is known
_IDENTITY_BELOW_PX = 0.1


def render_stack(
    rgb: NDArray[np.uint8] | Image,
    depth_m: NDArray[np.floating],
    camera: Camera,
    focus_diopters: ArrayLike,
    *,
    rng: np.random.Generator | int = 0,
    noise: float = _DEFAULT.noise,
    noise_space: str = _DEFAULT.noise_space,
    transfer_curve: str = _DEFAULT.transfer_curve,
    breathing: bool = _DEFAULT.breathing,
    shift_px: ArrayLike | None = None,
    gain: ArrayLike | None = None,
    layer_step_px: float = _DEFAULT.layer_step_px,
    max_layers: int = _DEFAULT.max_layers,
) -> FocalStack:
    """The focal stack a thin lens takes of a scene given as one sharp image and its depth.

    Parameters
    ----------
    rgb
        (H, W, 3) uint8 as a camera gives it, or float32 linear light (1 = white).
    depth_m
        (H, W) depth along the optical axis in metres, inf allowed; 0, negative or NaN = unknown, filled from around.
    camera, focus_diopters
        The lens and the focus of each image (F,). `camera.pixel_pitch_m` is that of these H x W pixels.
    rng
        Generator or seed of the noise.
    noise, noise_space
        Standard deviation of Gaussian noise as a share of full scale, added to the ``srgb``-encoded values (the encoding
        about evens out photon noise) or to ``linear`` light.
    transfer_curve
        ``srgb``: values are decoded, blurred in linear light and encoded again; ``linear``: values are light.
    breathing
        Scale each image about its centre by ``magnification(focus) / magnification(camera.reference_focus_diopters)``;
        `rgb` and `depth_m` are in the geometry of the reference focus. Without, the stack says that it does not breathe.
    shift_px
        (F, 2) image motion (right, down) of each image, as of a hand-held camera.
    gain
        (F,) exposure of each image relative to `rgb`.
    layer_step_px, max_layers
        Layers are as thick as changes the blur by this diameter in any image, thicker where that took more layers.

    Raises ValueError for images that do not match, no depth at all, or blur wider than the image.
    """
    focus = np.atleast_1d(np.asarray(focus_diopters, np.float64))
    linear = decode(rgb, transfer_curve)
    depth = fill_depth_holes(_checked_depth(depth_m, linear.shape))
    generator = np.random.default_rng(rng)
    scale = _image_scale(focus, camera, breathing)
    motion = _per_frame(shift_px, (len(focus), 2), 0.0, "shift_px")
    exposure = _per_frame(gain, (len(focus),), 1.0, "gain")

    # The scene stays in the reference geometry and is enlarged last, so its blur is divided by that scale here.
    px_per_diopter = optics.coc_px_per_diopter(focus, camera) / scale
    inverse_depth = 1.0 / depth
    layer_of_pixel, layer_diopters = cut_into_layers(
        inverse_depth, layer_step_px / float(px_per_diopter.max()), max_layers
    )
    diameters = px_per_diopter[:, None] * np.abs(focus[:, None] - layer_diopters[None, :])  # (F, K)
    frames = _composite(linear, layer_of_pixel, diameters)

    images = np.empty((len(focus), *linear.shape), np.uint8)
    for i, frame in enumerate(frames):
        frame = _moved(frame, float(scale[i]), motion[i]) * np.float32(exposure[i])
        images[i] = _developed(frame, transfer_curve, noise, noise_space, generator)
    return FocalStack(
        images=images,
        focus_diopters=focus,
        camera=camera,
        magnification=np.full(len(focus), math.nan if breathing else 1.0),
    )


def decode(image: NDArray[np.uint8] | Image, transfer_curve: str = "srgb") -> Image:
    """Linear light, float32, of a uint8 image (``srgb``: IEC 61966-2-1; ``linear``: value / 255); float32 stays."""
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"rgb: expected an array (H, W, 3), received {getattr(image, 'shape', type(image).__name__)}")
    if image.dtype == np.float32:
        if not np.isfinite(image).all() or image.min() < 0:
            raise ValueError("rgb: expected finite linear light of 0 or more")
        return image
    if image.dtype != np.uint8:
        raise TypeError(f"rgb: expected uint8, or float32 linear light, received {image.dtype}")
    value = np.arange(256) / 255.0
    if transfer_curve == "srgb":
        value = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    decoded: Image = value.astype(np.float32)[image]
    return decoded


def encode(linear: Image, transfer_curve: str = "srgb") -> Image:
    """Encoded values, 0 to 1, of linear light; the inverse of :func:`decode` before rounding."""
    light = np.clip(linear, 0.0, 1.0)
    if transfer_curve == "srgb":
        return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** np.float32(1 / 2.4) - 0.055)
    return light


def fill_depth_holes(depth_m: NDArray[np.floating]) -> NDArray[np.float64]:
    """Depth (H, W) with unknown pixels (0, negative, NaN) filled.

    Depth cameras see nothing beside near objects, in their own shadow, where the background goes on: a hole takes the
    farther of the nearest known depths to its left and right, then the median of its surroundings; a row without
    any depth takes that of the nearest known pixel. Raises ValueError where nothing is known.
    """
    depth = np.asarray(depth_m, np.float64)
    known = depth > 0
    if not known.any():
        raise ValueError("depth_m: no pixel has a depth over 0 m")
    if known.all():
        return depth
    column = np.broadcast_to(np.arange(depth.shape[1]), depth.shape)
    row = np.broadcast_to(np.arange(depth.shape[0])[:, None], depth.shape)
    left = np.maximum.accumulate(np.where(known, column, -1), axis=1)
    right = np.minimum.accumulate(np.where(known, column, depth.shape[1])[:, ::-1], axis=1)[:, ::-1]
    from_left = np.where(left >= 0, depth[row, np.maximum(left, 0)], 0.0)
    from_right = np.where(right < depth.shape[1], depth[row, np.minimum(right, depth.shape[1] - 1)], 0.0)
    filled = np.where(known, depth, np.maximum(from_left, from_right))
    empty = filled <= 0
    if empty.any():
        rows, columns = _nearest(~empty)
        filled = filled[rows, columns]
    smooth = cv2.medianBlur(filled.astype(np.float32), 5).astype(np.float64)
    return np.where(known, depth, smooth)


def cut_into_layers(
    inverse_depth: NDArray[np.float64], step_diopters: float, max_layers: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Layer of every pixel (H, W), 0 = farthest, and inverse depth (K,) of every layer, the mean of its pixels.

    Layers start where there is something and are at most `step_diopters` thick, so a plane facing the lens is one layer at
    exactly its depth; where that took more than `max_layers`, they are thicker.
    """
    values = np.unique(inverse_depth)
    step = max(step_diopters, float(np.ptp(values)) / max_layers)
    starts = [0]
    while True:
        following = int(np.searchsorted(values, values[starts[-1]] + step * (1 + 1e-9), side="right"))
        if following >= len(values):
            break
        starts.append(following)
    layer = np.searchsorted(values[starts], inverse_depth.ravel(), side="right") - 1
    count = np.bincount(layer, minlength=len(starts))
    mean = np.bincount(layer, weights=inverse_depth.ravel(), minlength=len(starts)) / count
    return layer.reshape(inverse_depth.shape).astype(np.int32), mean


@lru_cache(maxsize=1)
def _rasterised_diameters() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(true diameter, diameter to rasterise) of equal second moment, for small disks."""
    rasterised = np.arange(1.0, 12.0, 0.02)
    offset = np.arange(-6, 7)
    variance = [float((optics.disk_psf(d, 13).sum(axis=0) * offset**2).sum()) for d in rasterised]
    return 4.0 * np.sqrt(np.maximum.accumulate(variance)), rasterised


def blur_psf(diameter_px: float) -> NDArray[np.float64]:
    """Blur kernel between a sharp and a defocused image of the same camera, odd size, sum 1.

    Pixels gather light over their area, in the sharp image as in the defocused one. The kernel between the two is the
    disk alone, while its rasterisation on the pixel grid (`optics.disk_psf`) is wider by a pixel, a variance of 1/12 px^2.
    So the disk is rasterised at the slightly smaller diameter whose second moment is the true disk's, diameter^2 / 16.
    """
    true, rasterised = _rasterised_diameters()
    if diameter_px < _IDENTITY_BELOW_PX:
        return np.ones((1, 1))
    if diameter_px < true[-1]:
        diameter = float(np.interp(diameter_px, true, rasterised))
    else:
        diameter = math.sqrt(diameter_px**2 - 4.0 / 3.0)
    return optics.disk_psf(diameter, 2 * math.ceil((diameter - 1.0) / 2.0) + 1)


def _composite(linear: Image, layer_of_pixel: NDArray[np.int32], diameters: NDArray[np.float64]) -> Image:
    """Frames (F, H, W, 3) in linear light of layers blurred by `diameters` (F, K), far to near."""
    height, width = layer_of_pixel.shape
    widest = float(diameters.max())
    if widest > min(height, width):
        raise ValueError(
            f"blur of {widest:.0f} px is wider than the image ({width} x {height}); check the camera's units, "
            "or leave out what lies so near"
        )
    # Mirrored surroundings, wide enough that neither the FFT's wrap-around nor an edge is seen by any disk.
    pad = math.ceil(widest / 2) + 1
    border = ((pad, pad), (pad, pad))
    linear = np.pad(linear, (*border, (0, 0)), mode="symmetric")
    layer_of_pixel = np.pad(layer_of_pixel, border, mode="symmetric")
    shape = tuple(fft.next_fast_len(n, real=True) for n in layer_of_pixel.shape)

    frames = np.zeros((len(diameters), height, width, 3), np.float32)
    for k in range(diameters.shape[1]):
        planes = _layer_planes(linear, layer_of_pixel, k)
        spectrum = fft.rfft2(planes, shape)
        for i, diameter in enumerate(diameters[:, k]):
            if diameter < _IDENTITY_BELOW_PX:
                blurred = planes
            else:
                blurred = fft.irfft2(spectrum * _transfer(float(diameter), shape), shape)
            colour_weight = blurred[:, pad : pad + height, pad : pad + width]
            share = colour_weight[:4] / np.maximum(colour_weight[4], _HIDDEN_WEIGHT / 2)
            frames[i] = share[:3].transpose(1, 2, 0) + (1.0 - share[3, ..., None]) * frames[i]
    return frames


def _layer_planes(linear: Image, layer_of_pixel: NDArray[np.int32], k: int) -> Image:
    """Weighted colour (3), weight W_k, and weight of all layers up to k, as planes (5, H, W).

    Behind nearer layers the weight is small, and colour is mirrored across the edge of what is visible, so that texture
    goes on behind it.
    """
    visible = layer_of_pixel <= k
    rows, columns = _nearest(visible)
    own_rows, own_columns = np.indices(visible.shape)
    mirror_rows = np.clip(2 * rows - own_rows, 0, visible.shape[0] - 1)
    mirror_columns = np.clip(2 * columns - own_columns, 0, visible.shape[1] - 1)
    same_layer = layer_of_pixel[mirror_rows, mirror_columns] == layer_of_pixel[rows, columns]
    source = np.where(same_layer, mirror_rows, rows), np.where(same_layer, mirror_columns, columns)

    weight_all = np.where(visible, np.float32(1.0), np.float32(_HIDDEN_WEIGHT))
    weight = weight_all * (layer_of_pixel[rows, columns] == k)
    planes = np.empty((5, *visible.shape), np.float32)
    planes[:3] = (weight[..., None] * linear[source]).transpose(2, 0, 1)
    planes[3] = weight
    planes[4] = weight_all
    return planes


def _nearest(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(row, column) of the nearest pixel of `mask` (not empty), for every pixel; of itself within the mask."""
    _, labels = cv2.distanceTransformWithLabels(
        (~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    rows, columns = np.nonzero(mask)
    position = np.zeros(int(labels.max()) + 1, np.intp)
    position[labels[rows, columns]] = np.arange(len(rows))
    return rows[position[labels]], columns[position[labels]]


def _transfer(diameter_px: float, shape: Sequence[int]) -> NDArray[np.complex64]:
    psf = blur_psf(diameter_px)
    half = psf.shape[0] // 2
    kernel = np.zeros(shape, np.float32)
    kernel[: psf.shape[0], : psf.shape[1]] = psf
    transfer: NDArray[np.complex64] = fft.rfft2(np.roll(kernel, (-half, -half), axis=(0, 1)))
    return transfer


def _moved(frame: Image, scale: float, shift_px: NDArray[np.float64]) -> Image:
    """`frame` scaled about its centre and then shifted (right, down)."""
    if scale == 1.0 and not shift_px.any():
        return frame
    height, width = frame.shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = centre - scale * centre + shift_px
    matrix = np.array([[scale, 0.0, offset[0]], [0.0, scale, offset[1]]])
    moved: Image = cv2.warpAffine(
        frame, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.maximum(moved, 0.0)


def _developed(
    light: Image, transfer_curve: str, noise: float, noise_space: str, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """uint8 values of linear light, with noise."""
    grain = rng.standard_normal(light.shape, np.float32) * np.float32(noise) if noise > 0 else np.float32(0.0)
    if noise_space == "linear":
        value = encode(light + grain, transfer_curve)
    else:
        value = encode(light, transfer_curve) + grain
    return np.rint(np.clip(value, 0.0, 1.0) * 255.0).astype(np.uint8)


def _checked_depth(depth_m: NDArray[np.floating], image_shape: tuple[int, ...]) -> NDArray[np.floating]:
    if not isinstance(depth_m, np.ndarray) or depth_m.shape != image_shape[:2]:
        raise ValueError(
            f"depth_m: expected shape {image_shape[:2]} as the image, "
            f"received {getattr(depth_m, 'shape', type(depth_m).__name__)}"
        )
    return depth_m


def _image_scale(focus: NDArray[np.float64], camera: Camera, breathing: bool) -> NDArray[np.float64]:
    if not breathing:
        return np.ones(len(focus))
    return optics.magnification(focus, camera) / optics.magnification(camera.reference_focus_diopters, camera)


def _per_frame(
    values: ArrayLike | None, shape: tuple[int, ...], default: float, name: str
) -> NDArray[np.float64]:
    array = np.full(shape, default) if values is None else np.asarray(values, np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers of shape {shape}, one for each image, received {values}")
    return array
