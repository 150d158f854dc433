"""Settings of the estimation: from a focal stack to depth."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from dfs_ros.config.setting import setting


@dataclass(frozen=True)
class LensConfig:
    """The lens, where neither the stack nor the focus messages say."""

    focal_length_m: float = setting(0.0, "Focal length; 0 = from the focus messages", unit="m", low=0, high=2)
    f_number: float = setting(0.0, "f-number; 0 = from the focus messages", low=0, high=128)
    pixel_pitch_m: float = setting(
        0.0, "Size of an image pixel on the sensor; 0 = from focal length and camera_info", unit="m", low=0, high=1e-3
    )
    reference_focus_diopters: float = setting(
        0.0, "Focus at which camera_info was calibrated", unit="1/m", low=0, high=100
    )
    aperture_scale: float = setting(
        1.0,
        "True blur over what focal length, f-number and pixel size say; `dfs calibrate` fits it",
        low=0.1,
        high=10,
        live=True,
    )
    aperture: str = setting(
        "fitted",
        "given = blur as described, times aperture_scale; fitted = and times a factor fitted to each stack, where that "
        "is clearly not 1; of a live camera to some of the first",
        choices=("fitted", "given"),
        live=True,
    )


NEAREST_DEPTH_M = 0.31
"""The nearest depth tried, unless the settings say or a stack is focused nearer."""


@dataclass(frozen=True)
class HypothesesConfig:
    """The depths that are tried at every pixel."""

    min_depth_m: float = setting(
        0.0,
        f"Nearest depth tried; 0 = {NEAREST_DEPTH_M} m, or a fifth nearer than the nearest focus where that is nearer",
        unit="m",
        low=0,
        high=1000,
        live=True,
    )
    max_depth_m: float = setting(10.0, "Farthest depth tried", unit="m", low=0.01, high=10000, live=True)
    count: int = setting(64, "Number of depths tried", low=2, high=512, live=True)
    interpolate_to: int = setting(
        60,
        "Where count is less, costs between two depths are interpolated until there are this many (residual cost "
        "only); 0 = never, which is faster and less accurate",
        low=0,
        high=512,
        live=True,
    )
    spacing: str = setting(
        "inverse", "Even steps in inverse depth (dioptres) or in depth", choices=("inverse", "linear"), live=True
    )


# What "auto", 0 and -1 mean for each cost volume. The DDFS volumes follow their authors' code and text. Those of
# `residual` are measured on rendered stacks: luma costs 7 % of accuracy for a third of the time; a raw argmin likes a
# wider window (3 px), but regularisation and network, which look around a pixel themselves, a narrower one (1 to
# 1.5 px).
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
    """The cost volume: how badly a depth explains the stack around a pixel."""

    method: str = setting("residual", "Which cost volume", choices=tuple(_COST_METHODS))
    psf: str = setting(
        "auto",
        "Point spread function: disk (analytic), table (DDFS's rasterised disk), gaussian; auto = the method's own",
        choices=("auto", "disk", "table", "gaussian"),
    )
    max_coc_px: float = setting(40.0, "Blur diameters are clamped here", unit="px", low=1, high=200)
    eps: float = setting(0.0, "Regularisation of the deconvolution; 0 = the method's own", low=0, high=1)
    window_sigma_px: float = setting(
        0.0, "Gaussian window of the cost; 0 = the method's own", unit="px", low=0, high=20
    )
    padding_px: int = setting(-1, "Reflected border before the FFT; -1 = the method's own", unit="px", low=-1, high=128)
    transfer_curve: str = setting(
        "auto",
        "Pixel values to light: srgb (decoded before the FFT), linear (used as they are); auto = the method's own",
        choices=("auto", "srgb", "linear"),
    )
    channels: str = setting(
        "auto",
        "Colour channels used: rgb, or luma (a third of the time); auto = the method's own",
        choices=("auto", "rgb", "luma"),
    )

    def resolved(self) -> CostConfig:
        """The same with every `auto`, 0 and -1 replaced by what it means for the method."""
        # The defaults of these settings are just those marks.
        methods_own = _COST_METHODS[self.method].items()
        own = {name: value for name, value in methods_own if getattr(self, name) == getattr(CostConfig, name)}
        return dataclasses.replace(self, **own)


@dataclass(frozen=True)
class RegularizationConfig:
    """How `network: none` turns a cost volume into depth."""

    guided_radius_px: int = setting(
        4, "Radius of the guided filter on each cost slice; 0 = off", unit="px", low=0, high=64, live=True
    )
    guided_eps: float = setting(
        1e-3, "Contrast under which the guide counts as flat, squared", low=1e-8, high=1, live=True
    )
    smoothness: float = setting(
        0.1, "Cost of a depth step of one hypothesis between neighbours; 0 = off", low=0, high=100, live=True
    )
    edge_contrast: float = setting(
        0.05, "Image contrast at which a depth step costs a third", low=1e-3, high=10, live=True
    )
    sharpness: float = setting(
        4.0,
        "Probability = softmax of minus the energy times this; sets sigma, not depth",
        low=0.01,
        high=1000,
        live=True,
    )


@dataclass(frozen=True)
class NetworkConfig:
    """The network between cost volume and depth."""

    name: str = setting("light", "none = regularised argmin, or a model of models/")
    runner: str = setting(
        "auto", "What runs the network", choices=("auto", "torch", "onnx", "tensorrt", "tensorrt_rtx")
    )
    precision: str = setting(
        "auto",
        "Of its convolutions; auto = the fastest whose depth is right: fp16 in TensorRT, in PyTorch TF32 on a GPU and "
        "bfloat16 on a CPU that has it",
        choices=("auto", "fp32", "fp16"),
    )


@dataclass(frozen=True)
class ConfidenceConfig:
    """Where there is depth at all."""

    dense: bool = setting(False, "Depth at every pixel, however unsure", live=True)
    min_confidence: float = setting(
        0.4,
        "Pixels whose best depth removes less than this share of the typical misfit get no depth",
        low=0,
        high=1,
        live=True,
    )
    max_relative_sigma: float = setting(
        0.5,
        "Pixels whose standard deviation is over this share of their depth get no depth",
        low=0.001,
        high=10,
        live=True,
    )


@dataclass(frozen=True)
class AlignmentConfig:
    """Removal of focus breathing, motion and exposure differences."""

    mode: str = setting(
        "refine",
        "off = images as they are; prior = focus breathing as the lens model or the driver has it; "
        "refine = found in the images, starting there",
        choices=("off", "prior", "refine"),
        live=True,
    )
    prior: str = setting(
        "thin_lens",
        "Magnification where the driver does not give it: 1 / (1 - f D), or linear: zoom_intercept + zoom_slope_m D",
        choices=("thin_lens", "linear"),
        live=True,
    )
    zoom_slope_m: float = setting(
        0.0,
        "Calibrated growth of the image per dioptre of focus; a thin lens' is its focal length",
        unit="m",
        low=-1,
        high=1,
        live=True,
    )
    zoom_intercept: float = setting(1.0, "Calibrated magnification at infinity", low=0.01, high=100, live=True)
    target_focus_diopters: float = setting(
        -1.0,
        "Focus whose magnification the images get; -1 = the reference image's",
        unit="1/m",
        low=-1,
        high=100,
        live=True,
    )
    normalize_exposure: bool = setting(True, "Bring all images to the exposure of the reference", live=True)
    transfer_curve: str = setting(
        "srgb", "How pixel values relate to light, in which images are compared", choices=("srgb", "linear"), live=True
    )
    local_motion: bool = setting(
        True, "Also remove what moves on its own (parallax), where that explains the images better", live=True
    )
    estimation_px: int = setting(
        640,
        "Longest side of the images that motion is found in; images are halved at least",
        unit="px",
        low=64,
        high=4096,
        live=True,
    )
    iterations: int = setting(6, "Most steps at each size of image", low=1, high=100, live=True)
    min_correlation: float = setting(
        0.4, "Images less alike than this do not belong to the stack", low=-1, high=1, live=True
    )
    min_contrast: float = setting(
        1.0, "Images of less local contrast have no texture to align by", unit="grey levels", low=0, high=255, live=True
    )
    max_shift: float = setting(
        0.15,
        "Largest shift of the image centre that is believed, as a share of the longer side",
        low=0,
        high=1,
        live=True,
    )
    max_zoom: float = setting(
        0.1, "Largest difference of scale from the expected one that is believed", low=0, high=1, live=True
    )
    max_rotation_deg: float = setting(10.0, "Largest rotation that is believed", unit="deg", low=0, high=180, live=True)


@dataclass(frozen=True)
class ProcessingConfig:
    """Where and how large."""

    device: str = setting("auto", "Where cost volume and network run", choices=("auto", "cpu", "cuda"))
    threads: int = setting(0, "CPU threads; 0 = all cores", low=0, high=256)
    cuda_graphs: bool = setting(
        True, "On a GPU, record what is launched for images of one size, and replay it: faster, more memory"
    )
    max_megapixels: float = setting(
        0.5,
        "Larger images are reduced to this for processing and the depth enlarged again",
        unit="Mpx",
        low=0.01,
        high=50,
    )
    max_input_megapixels: float = setting(50.0, "Larger images are refused", unit="Mpx", low=0.01, high=200)
