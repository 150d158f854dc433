"""Faulty stacks, which contradict their description.

Each must give depth within its sigma, no depth, or a warning. All but the planes are stacks of the condition `lens`
with one fault.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfs_research.evaluation.in_use import FRAME_RATE_HZ, HONEST, UsedStack, used_stack
from dfs_research.evaluation.shots import OVERSAMPLING, Shot
from dfs_ros.depth.doubt import NOMINAL_GAIN, NOMINAL_OFFSET_DIOPTERS, nominal_sigma
from dfs_ros.simulation.textures import random_texture
from dfs_ros.types import Camera

_LENS = HONEST["lens"]
_FLAT_LIGHT = 0.3


@dataclass(frozen=True)
class Fault:
    """Fault of a stack; `make` applies it to a shot."""

    name: str
    summary: str
    make: Callable[[Shot], UsedStack]

    def taken(self, shot: Shot) -> UsedStack:
        """Faulty stack of a shot."""
        return dataclasses.replace(self.make(shot), condition=self.name)


def _images(shot: Shot, which: Sequence[int], gains: Sequence[float] | None = None, what: str = "fault") -> UsedStack:
    """Stack whose image i has the focus of image `which[i]`, with new noise."""
    lens = shot.lens()
    light = shot.light(_LENS.views(shot, lens, shot.focus_diopters), lens)
    images = shot.developed(light[list(which)], lens.gains if gains is None else gains, what)
    return _as_lens(shot, images)


def _as_lens(shot: Shot, images: NDArray[np.uint8]) -> UsedStack:
    count = len(shot.focus_diopters)
    return used_stack(shot, "lens", images, shot.lens(), np.zeros((count, 3)), shot.focus_diopters, np.zeros(count))


def _told(
    focus: Callable[[NDArray[np.float64]], NDArray[np.float64]], *, doubt: str = "exact"
) -> Callable[[Shot], UsedStack]:
    """Stack with wrong focus values, whose uncertainty is stated to be `exact` or `nominal`, or is `unstated`."""

    def make(shot: Shot) -> UsedStack:
        used = _LENS.taken(shot)
        told = focus(shot.focus_diopters)
        sigma = {"exact": 0.0 * told, "nominal": nominal_sigma(told), "unstated": np.full(len(told), np.nan)}[doubt]
        stack = dataclasses.replace(used.stack, focus_diopters=told, focus_sigma_diopters=sigma)
        return dataclasses.replace(used, stack=stack)

    return make


def _camera(change: Callable[[Camera], Camera]) -> Callable[[Shot], UsedStack]:
    """Stack with a wrong camera, beside the f-number error of the condition `lens`."""

    def make(shot: Shot) -> UsedStack:
        used = _LENS.taken(shot)
        return dataclasses.replace(used, stack=dataclasses.replace(used.stack, camera=change(used.stack.camera)))

    return make


def _plane(depth_m: float) -> Callable[[Shot], UsedStack]:
    """Photo as a flat picture facing the camera."""

    def make(shot: Shot) -> UsedStack:
        depth = np.full(shot.scene.depth_m.shape, depth_m, np.float32)
        return _LENS.taken(dataclasses.replace(shot, scene=dataclasses.replace(shot.scene, depth_m=depth)))

    return make


def _near_part(depth_m: float, share: float, contrast: float = 1.0) -> Callable[[Shot], UsedStack]:
    """Photo whose left `share` is a flat picture facing the camera, of this contrast, before the rest."""

    def make(shot: Shot) -> UsedStack:
        depth, rgb = shot.scene.depth_m.copy(), shot.scene.rgb.copy()
        part = np.s_[:, : OVERSAMPLING * round(share * depth.shape[1] / OVERSAMPLING)]
        depth[part] = depth_m
        mean = rgb[part].mean(axis=(0, 1))
        rgb[part] = np.rint(mean + contrast * (rgb[part] - mean)).astype(np.uint8)
        return _LENS.taken(dataclasses.replace(shot, scene=dataclasses.replace(shot.scene, depth_m=depth, rgb=rgb)))

    return make


def _hand(shot: Shot) -> UsedStack:
    """Flat textured patch, of a tenth of the image, that moves before the scene at 0.2 to 1 m/s."""
    rng, count, camera = shot.rng("hand"), len(shot.focus_diopters), shot.setup.camera
    height, width = shot.scene.depth_m.shape
    size = (OVERSAMPLING * round(0.4 * height / OVERSAMPLING), OVERSAMPLING * round(0.25 * width / OVERSAMPLING))
    depth_m = 0.8 * float(np.nanpercentile(shot.scene.depth_m, 5.0))
    texture, angle = random_texture(rng, max(size)), rng.uniform(0.0, 2.0 * np.pi)
    speed_px_s = math.exp(rng.uniform(*np.log([0.2, 1.0]))) / depth_m
    speed_px_s *= OVERSAMPLING * camera.focal_length_m / camera.pixel_pitch_m
    top, left = rng.uniform(0.2, 0.4) * height, rng.uniform(0.2, 0.55) * width
    lens, scenes = shot.lens(), []
    for i in range(count):
        moved = speed_px_s * (i - shot.reference) / FRAME_RATE_HZ
        row, column = round(top + moved * math.sin(angle)), round(left + moved * math.cos(angle))
        rgb, depth = shot.scene.rgb.copy(), shot.scene.depth_m.copy()
        rows, columns = (np.s_[max(0, at) : max(0, at + n)] for at, n in zip((row, column), size, strict=True))
        seen = depth[rows, columns].shape
        from_row, from_column = max(0, -row), max(0, -column)
        depth[rows, columns] = depth_m
        rgb[rows, columns] = texture[from_row : from_row + seen[0], from_column : from_column + seen[1]]
        scenes.append(dataclasses.replace(shot.scene, rgb=rgb, depth_m=depth))
    views = _LENS.views(shot, lens, shot.focus_diopters)
    light = np.concatenate([shot.light((view,), lens, scene) for view, scene in zip(views, scenes, strict=True)])
    used = _as_lens(shot, shot.developed(light, lens.gains, "hand"))
    return dataclasses.replace(used, depth_m=dataclasses.replace(shot, scene=scenes[shot.reference]).depth_m)


def _swapped(shot: Shot) -> UsedStack:
    i = int(shot.rng("swapped").integers(len(shot.focus_diopters) - 1))

    def swap(focus: NDArray[np.float64]) -> NDArray[np.float64]:
        order = np.arange(len(focus))
        order[[i, i + 1]] = order[[i + 1, i]]
        return focus[order]

    return _told(swap)(shot)


def _shuffled(shot: Shot) -> UsedStack:
    rng, order = shot.rng("shuffled"), np.arange(len(shot.focus_diopters))
    shuffled = order
    while np.array_equal(shuffled, order) or np.array_equal(shuffled, order[::-1]):
        shuffled = rng.permutation(order)
    return _told(lambda focus: focus[shuffled])(shot)


def _stuck(shot: Shot) -> UsedStack:
    return _images(shot, [shot.reference] * len(shot.focus_diopters))


def _later(by: int) -> Callable[[Shot], UsedStack]:
    """Stack whose image i has the focus of image i - `by`, clamped to the sweep."""

    def make(shot: Shot) -> UsedStack:
        last = len(shot.focus_diopters) - 1
        return _images(shot, list(np.clip(np.arange(last + 1) - by, 0, last)))

    return make


def _cyclic(shot: Shot) -> UsedStack:
    return _images(shot, list(np.roll(np.arange(len(shot.focus_diopters)), 1)))


def _repeated(shot: Shot) -> UsedStack:
    """Repeat one image exactly, as a driver that drops a frame."""
    used = _LENS.taken(shot)
    images, i = used.stack.images.copy(), int(shot.rng("repeated").integers(1, len(used.stack)))
    images[i] = images[i - 1]
    return dataclasses.replace(used, stack=dataclasses.replace(used.stack, images=images))


def _other_than_reference(shot: Shot, what: str) -> int:
    return int(shot.rng(what).choice([i for i in range(len(shot.focus_diopters)) if i != shot.reference]))


def _foreign(shot: Shot) -> UsedStack:
    used = _LENS.taken(shot)
    images, i = used.stack.images.copy(), _other_than_reference(shot, "foreign")
    images[i] = images[i, ::-1, ::-1]
    return dataclasses.replace(used, stack=dataclasses.replace(used.stack, images=images))


def _overexposed(shot: Shot) -> UsedStack:
    gains = list(shot.lens().gains)
    gains[_other_than_reference(shot, "overexposed")] *= 4.0
    return _images(shot, range(len(gains)), gains)


def _flat(shot: Shot) -> UsedStack:
    light = np.full((len(shot.focus_diopters), *shot.depth_m.shape, 3), _FLAT_LIGHT, np.float32)
    return _as_lens(shot, shot.developed(light, shot.lens().gains, "flat"))


FAULTS: Mapping[str, Fault] = {
    f.name: f
    for f in (
        Fault("stuck", "the lens does not move: the reference image's focus in every image", _stuck),
        Fault("reversed", "focus list reversed", _told(lambda d: d[::-1])),
        Fault("swapped", "two neighbouring focus values swapped", _swapped),
        Fault("shuffled", "focus values in random order", _shuffled),
        Fault("late", "every image one focus step late, the first focus twice", _later(1)),
        Fault("repeated", "one image is the one before it again", _repeated),
        Fault("metres", "focus distances in metres in the place of dioptres", _told(lambda d: 1.0 / d)),
        Fault("millimetres", "focus distances in millimetres taken as metres", _told(lambda d: d / 1000.0)),
        Fault("f_number_over", "f-number told 2.8 times too large", _camera(lambda c: _with(c, 2.8))),
        Fault("f_number_under", "f-number told 2.8 times too small", _camera(lambda c: _with(c, 1 / 2.8))),
        Fault(
            "gain_1.2", "focus told 1.2 times too large, no doubt stated", _told(lambda d: 1.2 * d, doubt="unstated")
        ),
        Fault("gain_0.8", "focus told 0.8 times as large, no doubt stated", _told(lambda d: 0.8 * d, doubt="unstated")),
        Fault(
            "offset_0.3",
            "focus told 0.3 dioptres too large, no doubt stated",
            _told(lambda d: d + 0.3, doubt="unstated"),
        ),
        Fault("near_plane", "a flat picture at 0.22 m, nearer than focus and range", _plane(0.22)),
        Fault("over_max_coc", "a flat picture at 0.12 m, blurred over max_coc_px", _plane(0.12)),
        Fault("near_half", "the left half a flat picture at 0.22 m, before the scene", _near_part(0.22, 0.5)),
        Fault("near_half_weak", "as near_half, of a quarter of the contrast", _near_part(0.22, 0.5, 0.25)),
        Fault("near_strip", "the left fifth a flat picture at 0.15 m, before the scene", _near_part(0.15, 0.2)),
        Fault("near_strip_weak", "as near_strip, of a quarter of the contrast", _near_part(0.15, 0.2, 0.25)),
        Fault("far_plane", "a flat picture at 15 m, beyond the range", _plane(15.0)),
        Fault(
            "gain_nominal",
            "focus told 5 % too large, that doubt stated",
            _told(lambda d: (1 + NOMINAL_GAIN) * d, doubt="nominal"),
        ),
        Fault(
            "offset_nominal",
            "focus told 0.1 dioptres too large, that doubt stated",
            _told(lambda d: d + NOMINAL_OFFSET_DIOPTERS, doubt="nominal"),
        ),
        Fault("early", "every image one focus step early, the last focus twice", _later(-1)),
        Fault("cyclic", "the sweep begins one image late, cyclically", _cyclic),
        Fault(
            "pixel_pitch",
            "pixel size of the sensor told for images binned 2 x 2",
            _camera(lambda c: dataclasses.replace(c, pixel_pitch_m=c.pixel_pitch_m / 2)),
        ),
        Fault(
            "focal_length",
            "focal length told 1.5 times too long, as a 35 mm equivalent",
            _camera(lambda c: dataclasses.replace(c, focal_length_m=1.5 * c.focal_length_m)),
        ),
        Fault("overexposed", "one image exposed four times as long", _overexposed),
        Fault("foreign", "one image of something else: itself turned by 180 degrees", _foreign),
        Fault("hand", "a textured patch, a tenth of the image, moves before the scene at 0.2 to 1 m/s", _hand),
        Fault("flat", "no texture: even grey and noise", _flat),
    )
}
"""Faults by name; from `gain_nominal` on beyond the project's list of faults."""


def _with(camera: Camera, factor: float) -> Camera:
    return dataclasses.replace(camera, f_number=camera.f_number * factor)
