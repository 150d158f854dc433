"""Thin-lens rendering of focal stacks from a photo and its depth, with occlusion.

The scene is split into layers of nearly equal blur, every pixel between the two nearest in depth. Each layer is blurred
by its disk and composited over the farther ones, far to near, in linear intensity (after Ikoma et al., ICCP 2021):

    W_k   share of layer k in every pixel
    V_k   W_0 + ... + W_k, plus a small weight behind nearer layers, where the scene is extrapolated
    out   = blur_k(W_k I) / blur_k(V_k) + (1 - blur_k(W_k) / blur_k(V_k)) out

On a continuous surface the shares add up to one, so no seams appear and blur follows depth smoothly. At a depth edge
the near side blurs over the far side, and the far side never takes colour from the near side.

The blur is a convolution (by FFT, padded) with the rasterised disk of `disk_psf`, not with the analytic transfer
function: that one rings at the hard edges of a layer, a rasterised disk is never negative. Rasterising costs accuracy
where the disk is a pixel or two wide: on photos with blur of 1 to 2 px the images differ from exact ones by 2 to 3 of
255 (rms); rendered from a scene of twice the resolution, `oversampling=2`, by about 0.5 (1 where blur is 1 px).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from dfs_ros.config import SimulationConfig
from dfs_ros.optics import thin_lens
from dfs_ros.optics.srgb import linear_table, pixel_value
from dfs_ros.simulation.pupil import Pupil, pupil_psf
from dfs_ros.types import Camera, FocalStack

Image = NDArray[np.float32]

RENDERER_VERSION = 2
"""Increment when the same input gives other images, which invalidates cached stacks."""

_DEFAULT = SimulationConfig()
HIDDEN_WEIGHT = 0.01  # weight of extrapolated pixels: they count only where the aperture sees almost no known ones
_IDENTITY_BELOW_PX = 0.1


def render_stack(
    rgb: NDArray[np.uint8] | Image,
    depth_m: NDArray[np.floating],
    camera: Camera,
    focus_diopters: ArrayLike,
    *,
    breathing: bool = _DEFAULT.breathing,
    **settings: Any,
) -> FocalStack:
    """Render a focal stack; parameters and errors as of :func:`render_images`.

    Without `breathing` the magnification of the stack is 1, else unknown.
    """
    images = render_images(rgb, depth_m, camera, focus_diopters, breathing=breathing, **settings)
    return FocalStack(
        images=images,
        focus_diopters=np.atleast_1d(np.asarray(focus_diopters, np.float64)),
        camera=camera,
        magnification=np.full(len(images), math.nan if breathing else 1.0),
        focus_sigma_diopters=np.zeros(len(images)),
    )


def render_images(
    rgb: NDArray[np.uint8] | Image,
    depth_m: NDArray[np.floating],
    camera: Camera,
    focus_diopters: ArrayLike,
    *,
    oversampling: int = 1,
    rng: np.random.Generator | int = 0,
    noise: float = _DEFAULT.noise,
    noise_space: str = _DEFAULT.noise_space,
    transfer_curve: str = _DEFAULT.transfer_curve,
    breathing: bool = _DEFAULT.breathing,
    shift_px: ArrayLike | None = None,
    gain: ArrayLike | None = None,
    layer_step_px: float = _DEFAULT.layer_step_px,
    max_layers: int = _DEFAULT.max_layers,
    pupil: Pupil | None = None,
) -> NDArray[np.uint8]:
    """Render thin-lens images, uint8 (F, H, W, 3), of a sharp image with depth.

    Parameters
    ----------
    rgb
        (H, W, 3) uint8 from a camera, or float32 linear intensity (1 = white).
    depth_m
        (H, W) depth along the optical axis in metres, inf allowed; 0, negative or NaN = unknown, filled from around.
    camera, focus_diopters
        The lens and the focus of each image (F,). `camera.pixel_pitch_m` is that of the images' pixels.
    oversampling
        Resolution of `rgb` and `depth_m` relative to the images each way; 2 gives more exact blur and smooth edges for
        five times the time.
    rng
        Generator or seed of the noise.
    noise, noise_space
        Standard deviation of Gaussian noise as a share of full scale, added to the ``srgb``-encoded values (encoding
        about evens out photon noise) or to ``linear`` intensity.
    transfer_curve
        ``srgb``: values are decoded, blurred in linear intensity and encoded again; ``linear``: values are linear.
    breathing
        Scale each image about its centre by ``magnification(focus) / magnification(camera.reference_focus_diopters)``;
        `rgb` and `depth_m` are in the geometry of the reference focus.
    shift_px
        (F, 2) image motion (right, down) of each image, as of a hand-held camera.
    gain
        (F,) exposure of each image relative to `rgb`.
    layer_step_px, max_layers
        Distance of layers in blur diameter of the most blurred image; larger if `max_layers` would be exceeded.
    pupil
        Shape of the blur; None is the disk of an ideal lens.

    Blur diameters are limited to the height or width of the image. Raises ValueError or TypeError for images that do
    not match, an invalid camera, or no depth at all.
    """
    focus = np.atleast_1d(np.asarray(focus_diopters, np.float64))
    linear = decode(rgb, transfer_curve)
    depth = fill_depth_holes(_checked_depth(depth_m, linear.shape))
    if oversampling < 1 or linear.shape[0] % oversampling or linear.shape[1] % oversampling:
        raise ValueError(
            f"oversampling: expected a divisor of the scene's {linear.shape[1]} x {linear.shape[0]} pixels, "
            f"received {oversampling}"
        )
    generator = np.random.default_rng(rng)
    scale = _image_scale(focus, camera, breathing)
    motion = _per_frame(shift_px, (len(focus), 2), 0.0, "shift_px")
    exposure = _per_frame(gain, (len(focus),), 1.0, "gain")

    # The scene stays in the reference geometry and is enlarged last; its blur is divided by that scale here.
    px_per_diopter = thin_lens.coc_px_per_diopter(focus, camera) / scale
    inverse_depth = 1.0 / depth
    knots = layer_knots(inverse_depth, layer_step_px / float(px_per_diopter.max()), max_layers)
    # (F, K), scene pixels; negative on the near side of the focus.
    diameters = oversampling * px_per_diopter[:, None] * (focus[:, None] - knots[None, :])
    frames = _composite(linear, *layer_shares(inverse_depth, knots), diameters, pupil)

    images = []
    for i, frame in enumerate(frames):
        moved = _moved(frame, float(scale[i]), oversampling * motion[i])
        linear = reduce_image(moved, oversampling) * np.float32(exposure[i])
        images.append(_developed(linear, transfer_curve, noise, noise_space, generator))
    return np.stack(images)


def decode(image: NDArray[np.uint8] | Image, transfer_curve: str = "srgb") -> Image:
    """Linear intensity, float32, of a uint8 image (``srgb``: IEC 61966-2-1; ``linear``: value / 255); float32 stays."""
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"rgb: expected an array (H, W, 3), received {getattr(image, 'shape', type(image).__name__)}")
    if image.dtype == np.float32:
        if not np.isfinite(image).all() or image.min() < 0:
            raise ValueError("rgb: expected finite linear intensity of 0 or more")
        return image.astype(np.float32)
    if image.dtype != np.uint8:
        raise TypeError(f"rgb: expected uint8, or float32 linear intensity, received {image.dtype}")
    decoded: Image = linear_table(transfer_curve).astype(np.float32)[image]
    return decoded


def encode(linear: Image, transfer_curve: str = "srgb") -> Image:
    """Encoded values, 0 to 1, of linear intensity; the inverse of :func:`decode` before rounding."""
    return np.asarray(pixel_value(linear, transfer_curve) * np.float32(1 / 255), np.float32)


def encode_uint8(linear: Image, transfer_curve: str = "srgb") -> NDArray[np.uint8]:
    """The uint8 image of linear intensity; :func:`decode` undoes it but for rounding."""
    return _quantised(encode(linear, transfer_curve))


def reduce_image(linear: Image, factor: int) -> Image:
    """Mean over blocks of pixels, (H / factor, W / factor, 3)."""
    if factor == 1:
        return linear
    height, width = linear.shape[0] // factor, linear.shape[1] // factor
    reduced: Image = linear.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))
    return reduced


def fill_depth_holes(depth_m: NDArray[np.floating]) -> NDArray[np.float64]:
    """Depth (H, W) with unknown pixels (0, negative, NaN) filled.

    Depth cameras have holes beside near objects, in their own shadow, where the background continues: a hole takes the
    farther of the nearest known depths to its left and right, then the median of its surroundings; a row without any
    depth takes that of the nearest known pixel. Raises ValueError without any known depth.
    """
    depth = np.asarray(depth_m, np.float64)
    known = depth > 0
    if not known.any():
        raise ValueError("depth_m: no pixel has a depth over 0 m")
    if known.all():
        return depth
    # Medians, so that single wrong pixels at the rim of a hole do not fill it.
    around = cv2.medianBlur(depth[_nearest(known)].astype(np.float32), 5)
    row, column = np.indices(depth.shape)
    last = depth.shape[1] - 1
    left = np.maximum.accumulate(np.where(known, column, -1), axis=1)
    right = np.minimum.accumulate(np.where(known, column, last + 1)[:, ::-1], axis=1)[:, ::-1]
    from_left = np.where(left >= 0, around[row, np.maximum(left, 0)], 0.0)
    from_right = np.where(right <= last, around[row, np.minimum(right, last)], 0.0)
    farther = np.maximum(from_left, from_right)
    filled = np.where(known, depth, np.where(farther > 0, farther, around))
    smooth = cv2.medianBlur(filled.astype(np.float32), 5)
    return np.where(known, depth, smooth)


def layer_knots(inverse_depth: NDArray[np.float64], step_diopters: float, max_layers: int) -> NDArray[np.float64]:
    """Inverse depths (K,) of the layers, far to near, both extremes included.

    Neighbours are at most `step_diopters` apart, except across empty depths, so a scene of a few planes has a layer at
    exactly each. Beyond `max_layers` they are farther apart.
    """
    values = np.unique(inverse_depth)
    step = max(step_diopters, 2.0 * float(np.ptp(values)) / max_layers)  # one step holds two knots at most
    knots = [values[0]]
    while knots[-1] < values[-1]:
        after = int(np.searchsorted(values, knots[-1], side="right"))
        within = int(np.searchsorted(values, knots[-1] + step, side="right")) - 1
        knots.append(values[max(after, within)])
    return np.array(knots)


def layer_shares(
    inverse_depth: NDArray[np.float64], knots: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Farther layer (H, W) of every pixel and share (H, W) of the next nearer."""
    farther = np.clip(np.searchsorted(knots, inverse_depth, side="right") - 1, 0, len(knots) - 1)
    nearer = np.minimum(farther + 1, len(knots) - 1)
    gap = np.where(nearer > farther, knots[nearer] - knots[farther], 1.0)
    return farther, ((inverse_depth - knots[farther]) / gap).astype(np.float32)


@lru_cache(maxsize=1)
def _rasterised_diameters() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(true diameter, diameter to rasterise) of equal second moment, for small disks."""
    rasterised = np.arange(1.0, 12.0, 0.02)
    offset = np.arange(-6, 7)
    variance = [float((thin_lens.disk_psf(d, 13).sum(axis=0) * offset**2).sum()) for d in rasterised]
    return 4.0 * np.sqrt(np.maximum.accumulate(variance)), rasterised


def blur_psf(diameter_px: float, pupil: Pupil | None = None) -> NDArray[np.float64]:
    """Blur kernel from a sharp to a defocused image, odd size, sum 1.

    With a `pupil`, a negative diameter is that of a point nearer than the focus.

    Pixels integrate over their area, in the sharp and in the defocused image alike. The kernel between the two is the
    disk alone, while its rasterisation on the pixel grid (`disk_psf`) is wider by a pixel, a variance of 1/12 px^2.
    So the disk is rasterised at the slightly smaller diameter with the true disk's second moment, diameter^2 / 16.
    """
    true, rasterised = _rasterised_diameters()
    near, diameter_px = diameter_px < 0, abs(diameter_px)
    if diameter_px < _IDENTITY_BELOW_PX:
        return np.ones((1, 1))
    if diameter_px < true[-1]:
        diameter = float(np.interp(diameter_px, true, rasterised))
    else:
        diameter = math.sqrt(diameter_px**2 - 4.0 / 3.0)
    if pupil is not None:
        # The corner of a triangle, which sticks out most, is 1.56 radii from the centre.
        return pupil_psf(diameter, 2 * math.ceil(0.8 * diameter) + 1, pupil, near)
    return thin_lens.disk_psf(diameter, 2 * math.ceil((diameter - 1.0) / 2.0) + 1)


def _composite(
    linear: Image,
    farther: NDArray[np.intp],
    nearer_share: NDArray[np.float32],
    diameters: NDArray[np.float64],
    pupil: Pupil | None,
) -> Image:
    """Composite blurred layers, far to near, into frames (F, H, W, 3) of linear intensity."""
    height, width = farther.shape
    haze = min(height, width)  # wider blur is uniform anyway
    diameters = np.clip(diameters, -haze, haze)
    widest = float(np.abs(diameters).max())
    # Mirrored surroundings, wide enough that no disk reaches the FFT's wrap-around or an edge.
    pad = math.ceil(widest / 2 if pupil is None else 0.8 * widest) + 1
    border = ((pad, pad), (pad, pad))
    linear = np.pad(linear, (*border, (0, 0)), mode="symmetric")
    farther = np.pad(farther, border, mode="symmetric")
    nearer_share = np.pad(nearer_share, border, mode="symmetric")
    shape = (_fft_length(farther.shape[0]), _fft_length(farther.shape[1]))

    frames = np.zeros((len(diameters), 3, height, width), np.float32)
    for k in range(diameters.shape[1]):
        planes = layer_planes(linear, farther, nearer_share, k)
        spectrum = fft.rfft2(planes, shape)
        for i, diameter in enumerate(diameters[:, k]):
            if abs(diameter) < _IDENTITY_BELOW_PX:
                blurred = planes
            else:
                blurred = fft.irfft2(spectrum * _transfer(float(diameter), shape, pupil), shape)
            inside = blurred[:, pad : pad + height, pad : pad + width]
            layer = inside[:4] / np.maximum(inside[4], HIDDEN_WEIGHT / 2)
            frames[i] *= 1.0 - layer[3]
            frames[i] += layer[:3]
    return np.ascontiguousarray(frames.transpose(0, 2, 3, 1))


def layer_planes(linear: Image, farther: NDArray[np.intp], nearer_share: NDArray[np.float32], k: int) -> Image:
    """Colour times share (3), share W_k, and V_k of layer k, as planes (5, H, W).

    Pixels hidden by nearer layers are extrapolated from the nearest visible pixel, mirrored across the visible edge,
    which continues the texture. Their small weight counts only where nothing else is seen.
    """
    own = np.where(farther == k, 1.0 - nearer_share, np.where(farther == k - 1, nearer_share, np.float32(0.0)))
    visible = np.where(farther == k, 1.0 - nearer_share, (farther < k).astype(np.float32))
    guessed = HIDDEN_WEIGHT * (1.0 - visible)
    rows, columns = _nearest(visible >= 0.5)
    own_rows, own_columns = np.indices(visible.shape)
    mirror_rows = np.clip(2 * rows - own_rows, 0, visible.shape[0] - 1)
    mirror_columns = np.clip(2 * columns - own_columns, 0, visible.shape[1] - 1)
    same_surface = np.abs(farther[mirror_rows, mirror_columns] - farther[rows, columns]) <= 1
    source = np.where(same_surface, mirror_rows, rows), np.where(same_surface, mirror_columns, columns)

    guessed_own = guessed * (own[rows, columns] / visible[rows, columns])
    planes = np.empty((5, *visible.shape), np.float32)
    planes[:3] = (own[..., None] * linear + guessed_own[..., None] * linear[source]).transpose(2, 0, 1)
    planes[3] = own + guessed_own
    planes[4] = visible + guessed
    return planes


def _fft_length(length: int) -> int:
    return int(fft.next_fast_len(length, real=True))


def _nearest(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Nearest pixel (row, column) of a non-empty `mask`, for every pixel."""
    _, labels = cv2.distanceTransformWithLabels(
        (~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    rows, columns = np.nonzero(mask)
    position = np.zeros(int(labels.max()) + 1, np.intp)
    position[labels[rows, columns]] = np.arange(len(rows))
    return rows[position[labels]], columns[position[labels]]


def _transfer(diameter_px: float, shape: Sequence[int], pupil: Pupil | None) -> NDArray[np.complex64]:
    psf = blur_psf(diameter_px, pupil)
    half = psf.shape[0] // 2
    kernel = np.zeros(shape, np.float32)
    kernel[: psf.shape[0], : psf.shape[1]] = psf
    transfer: NDArray[np.complex64] = fft.rfft2(np.roll(kernel, (-half, -half), axis=(0, 1)))
    return transfer


def _moved(frame: Image, scale: float, shift_px: NDArray[np.float64]) -> Image:
    """Scale `frame` about its centre, then shift it (right, down)."""
    if scale == 1.0 and not shift_px.any():
        return frame
    height, width = frame.shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = centre - scale * centre + shift_px
    matrix = np.array([[scale, 0.0, offset[0]], [0.0, scale, offset[1]]])
    moved = cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return np.maximum(moved, 0.0).astype(np.float32)


def _developed(
    linear: Image, transfer_curve: str, noise: float, noise_space: str, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Encode linear intensity as uint8, with noise."""
    grain = rng.standard_normal(linear.shape, np.float32) * np.float32(noise) if noise > 0 else np.float32(0.0)
    in_linear = noise_space == "linear"
    value = encode(linear + grain, transfer_curve) if in_linear else encode(linear, transfer_curve) + grain
    return _quantised(value)


def _quantised(value: Image) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = np.rint(np.clip(value, 0.0, 1.0) * 255.0).astype(np.uint8)
    return image


def _checked_depth(depth_m: NDArray[np.floating], image_shape: tuple[int, ...]) -> NDArray[np.floating]:
    if not isinstance(depth_m, np.ndarray) or depth_m.shape != image_shape[:2]:
        raise ValueError(
            f"depth_m: expected an array of shape {image_shape[:2]} as the image, "
            f"received {getattr(depth_m, 'shape', type(depth_m).__name__)}"
        )
    return depth_m


def _image_scale(focus: NDArray[np.float64], camera: Camera, breathing: bool) -> NDArray[np.float64]:
    if not breathing:
        return np.ones(len(focus))
    return thin_lens.magnification(focus, camera) / thin_lens.magnification(camera.reference_focus_diopters, camera)


def _per_frame(values: ArrayLike | None, shape: tuple[int, ...], default: float, name: str) -> NDArray[np.float64]:
    array = np.full(shape, default) if values is None else np.asarray(values, np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers of shape {shape}, one for each image, received {values!r}")
    return array
