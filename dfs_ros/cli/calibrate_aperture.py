"""Measure the effective aperture of a lens from one focal stack: `dfs calibrate aperture STACK`.

Other calibrations: `dfs calibrate board --help`, `dfs calibrate lens --help`. The older form `dfs calibrate STACK`
still works.

The result is a factor on the blur that corrects f-number, focal length and pixel pitch together. Use it as
`--set lens.aperture_scale=...`, or put the f-number printed with it into stack.yaml. Suitable scenes are static, with
texture everywhere and objects both near and far. A common offset of all focus positions in dioptres cannot be measured
from a stack.
"""

from __future__ import annotations

import argparse
import json
import sys

from dfs_ros.cli.common import add_config_arguments, config_from_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stack", metavar="STACK", help="folder of the stack, with stack.yaml and its images")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    config = config_from_arguments(args)

    from tqdm import tqdm

    from dfs_ros.calibration.aperture import MEGAPIXELS
    from dfs_ros.calibration.stack import calibrate_aperture
    from dfs_ros.consistency.focus import aperture_finding
    from dfs_ros.consistency.stories import PLAUSIBLE_FACTORS
    from dfs_ros.io.stack_folder import load_stack

    stack = load_stack(args.stack, config.lens, config.limits.image_megapixels, MEGAPIXELS)
    with tqdm(leave=False, desc="fitting", unit="aperture", disable=None) as bar:
        fit = calibrate_aperture(stack, config, tried=lambda done: bar.update(done - bar.n))
    if not PLAUSIBLE_FACTORS[0] <= fit.measured <= PLAUSIBLE_FACTORS[1]:
        text = aperture_finding(f"about {fit.measured:.2f}", fit.measured).text
        print(f"dfs calibrate: warning: {args.stack}: {text}", file=sys.stderr)
    f_number = stack.camera.f_number / fit.measured
    if args.json:
        print(
            json.dumps(
                {
                    "aperture_scale": fit.measured,
                    "sigma": fit.sigma,
                    "f_number": f_number,
                    "share_of_pixels": fit.share,
                    "factors": fit.factors.tolist(),
                    "misfit": fit.misfit.tolist(),
                }
            )
        )
        return 0
    widest = max(fit.misfit)
    print("aperture scale   misfit (logarithm of the squared residual, over the best)")
    for factor, misfit in zip(fit.factors, fit.misfit, strict=True):
        print(f"{factor:14.3f}   {misfit:6.3f} {'#' * round(50 * misfit / widest)}")
    print(
        f"\nbest: lens.aperture_scale = {fit.measured:.3f} +- {fit.sigma:.3f}, "
        f"an f-number of {f_number:.2f} where the stack says {stack.camera.f_number:.2f} "
        f"({100 * fit.share:.0f} % of the pixels counted)"
    )
    return 0
