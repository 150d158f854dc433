"""Settings of depth estimation from a focal stack."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from dfs_ros.config.setting import setting


@dataclass(frozen=True)
class LensConfig:
    """Lens: overrides the focus messages, completes stack.yaml."""

    calibration: str = setting(
        "",
        "Calibration of the lens (lens-calibration/1 or lens-table/1) for depth node and V4L2 camera, as `dfs "
        "calibrate lens` makes it: focus of raw lens positions, with its doubt; lens and intrinsics, before messages "
        "and camera_info",
    )
    focal_length_m: float = setting(
        0.0, "Focal length; 0: from the focus messages or stack.yaml", unit="m", low=0, high=2
    )
    f_number: float = setting(
        0.0,
        "f-number, focal length over diameter of the entrance pupil; 0: from the focus messages or stack.yaml",
        low=0,
        high=128,
    )
    pixel_pitch_m: float = setting(
        0.0,
        "Pixel pitch of the images as received (sensor pixel pitch times binning); 0: from focal length and "
        "camera_info, or from stack.yaml",
        unit="m",
        low=0,
        high=1e-3,
    )
    reference_focus_diopters: float = setting(
        0.0, "Focus at which camera_info was calibrated; 0: infinity", unit="1/m", low=0, high=100
    )
    aperture_scale: float = setting(
        1.0,
        "Ratio of the true blur diameter to that computed from f-number, focal length and pixel pitch; `dfs "
        "calibrate` measures it",
        low=0.1,
        high=10,
        dynamic=True,
    )
    aberration: float = setting(
        0.0, "Spherical aberration of the lens, where known, as in dfs_ros.Camera", low=-1, high=1, dynamic=True
    )
    aperture: str = setting(
        "fitted",
        "Source of the effective aperture. given: computed blur times aperture_scale; fitted: where that is 1, times a "
        "factor estimated from three or more images (cost residual only; of a live camera from stacks 1, 4, 16, 32)",
        choices=("fitted", "given"),
        dynamic=True,
    )
    aperture_sigma: float = setting(
        0.0,
        "Standard deviation of the logarithm of aperture_scale where that is given (aperture: given, or a scale that "
        "is not 1); 0: exact",
        low=0,
        high=1,
        dynamic=True,
    )
    focus_sigma_diopters: float = setting(
        -1.0,
        "Standard deviation of focus values that state none (focus messages, stack.yaml, lens table); 0: exact; -1: "
        "nominal, 5 % of the dioptres and 0.1 dioptres",
        unit="1/m",
        low=-1,
        high=10,
        dynamic=True,
    )


@dataclass(frozen=True)
class HypothesesConfig:
    """Depth hypotheses: the candidate depths of every pixel, in the range found for each scene."""

    min_depth_m: float = setting(
        0.0,
        "Nearest depth to search; 0: none, the depth whose blur in the nearest focus reaches its limit",
        unit="m",
        low=0,
        high=1000,
        dynamic=True,
    )
    max_depth_m: float = setting(
        0.0,
        "Farthest depth to search; 0: none, infinity or the depth whose blur in the farthest focus reaches its limit",
        unit="m",
        low=0,
        high=10000,
        dynamic=True,
    )
    count: int = setting(
        61,
        "Number of depth hypotheses in the range of the scene. A half, a third or a quarter are computed if these lie "
        "at most 1.2 px of blur apart and interpolation makes as many; twice as many if they would lie over 2 px apart",
        low=2,
        high=512,
        dynamic=True,
    )
    interpolate_to: int = setting(
        60,
        "Minimum number of hypotheses after interpolation of the costs, where count is smaller (cost residual "
        "only); 0: no interpolation, faster and less accurate",
        low=0,
        high=512,
        dynamic=True,
    )
    spacing: str = setting(
        "inverse",
        "Spacing of the hypotheses. inverse: uniform in inverse depth (dioptres); linear: uniform in depth",
        choices=("inverse", "linear"),
        dynamic=True,
    )


# Values of "auto", 0 and -1 for each cost volume. The DDFS volumes follow their authors' code and text. Those of
# `residual` are measured on rendered stacks: luma costs 7 % of accuracy for a third of the time; a raw argmin is best
# with a wider window (3 px), regularisation and network, which aggregate themselves, with a narrower one (1 to 1.5 px).
_COST_METHODS: dict[str, dict[str, Any]] = {
    "released": {
        "psf": "table",
        "eps": 0.01,
        "window_sigma_px": 1.0,
        "padding_px": 0,
        "transfer_curve": "linear",
        "channels": "rgb",
    },
    "paper": {
        "psf": "disk",
        "eps": 0.01,
        "window_sigma_px": 1.0,
        "padding_px": 0,
        "transfer_curve": "linear",
        "channels": "rgb",
    },
    "residual": {
        "psf": "disk",
        "eps": 0.01,
        "window_sigma_px": 1.5,
        "padding_px": 16,
        "transfer_curve": "srgb",
        "channels": "luma",
    },
}


@dataclass(frozen=True)
class CostConfig:
    """Cost volume: misfit of every depth hypothesis; pixels at working size."""

    method: str = setting(
        "residual",
        "Cost volume. residual: misfit of one joint sharp image, re-blurred for every focus setting; released, "
        "paper: disagreement of separately deblurred images, as in the code and in the text of DDFS (Fujimura "
        "2024)",
        choices=tuple(_COST_METHODS),
    )
    psf: str = setting(
        "auto",
        "Point spread function. disk: analytic disk; table: rasterised disk of the DDFS code; gaussian: Gaussian "
        "of equal second moment; auto: default of the method",
        choices=("auto", "disk", "table", "gaussian"),
    )
    max_coc_px: float = setting(
        100.0,
        "Upper limit of the modelled blur diameter. Depths that blur more in every image, or by more than a sixth of "
        "the image's shorter side, cannot be distinguished and are not searched",
        unit="px",
        low=1,
        high=200,
    )
    eps: float = setting(
        0.0,
        "Regularisation weight of the deconvolution; larger values suppress noise and detail; 0: default of the method",
        low=0,
        high=1,
    )
    window_sigma_px: float = setting(
        0.0,
        "Standard deviation of the Gaussian window that averages the cost; 0: default of the method",
        unit="px",
        low=0,
        high=20,
    )
    padding_px: int = setting(
        -1,
        "Mirrored border around the images before the FFT; 0: none; -1: default of the method",
        unit="px",
        low=-1,
        high=128,
    )
    transfer_curve: str = setting(
        "auto",
        "Decoding of pixel values before the FFT. srgb: to linear intensity; linear: none; auto: default of the method",
        choices=("auto", "srgb", "linear"),
    )
    channels: str = setting(
        "auto",
        "Colour channels of the cost. rgb: all three; luma: luminance alone, faster; auto: default of the method",
        choices=("auto", "rgb", "luma"),
    )

    def resolved(self) -> CostConfig:
        """Copy with every `auto`, 0 and -1 replaced by the default of the method."""
        # The defaults of these settings are just those marks.
        methods_own = _COST_METHODS[self.method].items()
        own = {name: value for name, value in methods_own if getattr(self, name) == getattr(CostConfig, name)}
        return dataclasses.replace(self, **own)


@dataclass(frozen=True)
class RegularizationConfig:
    """Edge-preserving smoothing of the cost volume, with and without network, at working size."""

    guided_radius_px: int = setting(
        4, "Radius of the guided filter on each cost slice; 0: no filter", unit="px", low=0, high=64, dynamic=True
    )
    guided_eps: float = setting(
        1e-3,
        "Image variance (values 0 to 1) below which the guided filter smooths; edges of larger variance are kept",
        low=1e-8,
        high=1,
        dynamic=True,
    )
    smoothness: float = setting(
        0.1,
        "Penalty of semi-global matching for a depth step of one hypothesis between neighbouring pixels, ten "
        "times as high for larger steps; 0: no semi-global matching",
        low=0,
        high=100,
        dynamic=True,
    )
    edge_contrast: float = setting(
        0.05,
        "Brightness step between neighbouring pixels (image values 0 to 1) that reduces the smoothness penalty to 1/e",
        low=1e-3,
        high=10,
        dynamic=True,
    )
    sharpness: float = setting(
        4.0,
        "Factor of the energy in the softmax probability (network none only); larger: smaller sigma, more pixels "
        "with depth, same depth values",
        low=0.01,
        high=1000,
        dynamic=True,
    )

    def at_half(self) -> RegularizationConfig:
        """The same for costs at half the working size."""
        return dataclasses.replace(self, guided_radius_px=(self.guided_radius_px + 1) // 2)


@dataclass(frozen=True)
class ConfidenceConfig:
    """Reliability limits: pixels that fail them have no depth (NaN)."""

    dense: bool = setting(False, "Depth at every pixel, without a test of its reliability", dynamic=True)
    on_contradiction: str = setting(
        "no_depth",
        "Depth of a stack whose images contradict focus or lens data; no_depth: none; warn: as usual, with a warning",
        choices=("no_depth", "warn"),
        dynamic=True,
    )
    min_confidence: float = setting(
        0.4,
        "Minimum confidence of a pixel with depth; confidence = 1 - misfit of the best hypothesis / geometric mean "
        "of the misfits of all; 0: no limit",
        low=0,
        high=1,
        dynamic=True,
    )
    max_relative_sigma: float = setting(
        0.3,
        "Maximum sigma of the pixel alone, as a fraction of the depth: the published sigma without doubt about the "
        "lens, which all pixels share; pixels above it get no depth. The default removes 1 % of the pixels that "
        "min_confidence leaves",
        low=0.001,
        high=10,
        dynamic=True,
    )


@dataclass(frozen=True)
class AlignmentConfig:
    """Alignment: focus breathing, camera motion, exposure."""

    mode: str = setting(
        "refine",
        "Alignment of the images. off: none; prior: focus breathing as given by the driver or the lens model; "
        "refine: registration of the images, starting from prior",
        choices=("off", "prior", "refine"),
        dynamic=True,
    )
    prior: str = setting(
        "thin_lens",
        "Lens model of the magnification at a focus of D dioptres, where the driver reports none. thin_lens: 1 / "
        "(1 - f D) with focal length f; linear: zoom_intercept + zoom_slope_m D",
        choices=("thin_lens", "linear"),
        dynamic=True,
    )
    zoom_slope_m: float = setting(
        0.0,
        "Growth of the magnification per dioptre in the linear lens model; a thin lens has about its focal length",
        unit="m",
        low=-1,
        high=1,
        dynamic=True,
    )
    zoom_intercept: float = setting(
        1.0, "Magnification at infinity focus in the linear lens model", low=0.01, high=100, dynamic=True
    )
    target_focus_diopters: float = setting(
        -1.0,
        "Focus whose magnification the aligned images get; negative: that of the reference image",
        unit="1/m",
        low=-1,
        high=100,
        dynamic=True,
    )
    normalize_exposure: bool = setting(True, "Scale all images to the exposure of the reference image", dynamic=True)
    transfer_curve: str = setting(
        "srgb",
        "Decoding of pixel values for registration and exposure. srgb: to linear intensity; linear: none",
        choices=("srgb", "linear"),
        dynamic=True,
    )
    local_motion: bool = setting(
        True, "Correct local motion such as parallax too, where the corrected images match clearly better", dynamic=True
    )
    rounds: int = setting(
        1,
        "Number of times, at most, that motion is estimated again with the depth found, both images of a pair blurred "
        "alike. Depth is computed again only where motions changed by 0.1 px; such a stack takes up to twice as long "
        "each time. 0: never",
        low=0,
        high=4,
        dynamic=True,
    )
    estimation_px: int = setting(
        640,
        "Longest side of the images used for registration; at most half the longest side at working size, or 320 px "
        "if that is more",
        unit="px",
        low=64,
        high=4096,
        dynamic=True,
    )
    iterations: int = setting(
        6, "Maximum number of Gauss-Newton steps at each level of the image pyramid", low=1, high=100, dynamic=True
    )
    min_correlation: float = setting(
        0.4,
        "Minimum correlation with the reference image; images below it are dropped from the stack",
        low=-1,
        high=1,
        dynamic=True,
    )
    min_contrast: float = setting(
        1.0,
        "Minimum RMS local contrast of an image for registration; below it the lens model replaces registration, "
        "or the image is dropped",
        unit="grey levels",
        low=0,
        high=255,
        dynamic=True,
    )
    max_shift: float = setting(
        0.15,
        "Maximum shift of the image centre, as a fraction of the longer side; beyond it the lens model replaces "
        "registration, or the image is dropped",
        low=0,
        high=1,
        dynamic=True,
    )
    max_zoom: float = setting(
        0.1,
        "Maximum deviation of the scale from the lens model, as a fraction; beyond it as for max_shift",
        low=0,
        high=1,
        dynamic=True,
    )
    max_rotation_deg: float = setting(
        10.0,
        "Maximum rotation about the optical axis; beyond it as for max_shift",
        unit="deg",
        low=0,
        high=180,
        dynamic=True,
    )
