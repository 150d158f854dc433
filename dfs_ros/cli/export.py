"""Export the network as ONNX files for other inference engines.

Inputs: energy and smoothed (1, D, H / 2, W / 2), image (1, 4, H, W); output: probability (1, D, H / 2, W / 2); all
float32. Height and width are multiples of 32. --verify compares each file with PyTorch in every runner available. The
runners of dfs_ros export by themselves; the second command renews the files of models/ after a change of the weights.

    dfs export --output onnx --precision both --verify
    dfs export --output models --dynamic --verify
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dfs_ros.system.tracebacks import keep_traceback

if TYPE_CHECKING:
    from dfs_ros.network.export import Shape
    from dfs_ros.network.light import LightNetwork


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--network", default="light", metavar="NAME", help="model of models/, or a .safetensors file (default: light)"
    )
    parser.add_argument("--output", default="onnx", metavar="DIR", help="folder for the files (default: onnx)")
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "both"),
        default="both",
        help="precision of the convolutions (default: both)",
    )
    parser.add_argument("--hypotheses", type=int, default=64, help="number of depth hypotheses (default: 64)")
    parser.add_argument("--height", type=int, default=256, help="image height in pixels (default: 256)")
    parser.add_argument("--width", type=int, default=256, help="image width in pixels (default: 256)")
    parser.add_argument(
        "--dynamic",
        action="store_true",
        help="export for all sizes and numbers of hypotheses; the given ones serve as example",
    )
    parser.add_argument(
        "--verify", action="store_true", help="compare each file with PyTorch in every runner available"
    )


def run(args: argparse.Namespace) -> int:
    from dfs_ros.network.export import PRECISIONS, Shape, dynamic_name, export_onnx
    from dfs_ros.network.weights import load_weights, model_file
    from dfs_ros.system.atomic import write_atomically

    shape = Shape(args.hypotheses, args.height, args.width)
    file = model_file(args.network)
    module = load_weights(file)
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    good = True
    for precision in PRECISIONS if args.precision == "both" else (args.precision,):
        model = export_onnx(module, shape, precision, args.dynamic)
        fixed_name = f"{file.stem}-{shape}-{precision}.onnx"
        path = output / (dynamic_name(file.stem, precision) if args.dynamic else fixed_name)
        write_atomically(path, model)
        print(f"{path}: {len(model) / 1e6:.2f} MB")
        if args.verify:
            good &= _verify(module, model, shape, precision)
    return 0 if good else 1


def _verify(module: LightNetwork, model: bytes, shape: Shape, precision: str) -> bool:
    """Print the difference of each runner from PyTorch; True if all are within the tolerance."""
    import dataclasses

    from dfs_ros.network.export import INPUTS
    from dfs_ros.network.runners.base import RunnerError
    from dfs_ros.network.runners.choose import engine_model
    from dfs_ros.network.runners.onnx import OnnxRunner
    from dfs_ros.network.runners.tensorrt import BACKENDS, TensorRTRunner, build_engine, import_backend

    asked = engine_model(module, precision, shape)
    asked, golden = dataclasses.replace(asked, onnx=model), asked.golden
    good = True

    def report(name: str, far: float) -> bool:
        within = far <= golden.tolerance
        print(f"  {name}: largest difference {far:.2g} of the range, {'good' if within else 'WRONG'}")
        return within

    try:
        onnx = OnnxRunner(lambda: model, INPUTS, "cpu", precision=precision)
        good &= report(onnx.description, golden.difference(onnx.run(*golden.inputs())))
    except RunnerError as error:
        keep_traceback(error)
        print(f"  onnx: not compared: {error}")
    for backend in BACKENDS:
        try:
            trt = import_backend(backend)
            plan = build_engine(trt, model, asked.shapes)
            print(f"  {backend} {trt.__version__}: builds, {len(plan) / 1e6:.1f} MB")
            runner = TensorRTRunner(backend, lambda *_: asked, precision=precision)
            good &= report(runner.description, golden.difference(runner.run(*golden.inputs())))
        except RunnerError as error:
            keep_traceback(error)
            print(f"  {backend}: not compared: {error}")
    return good
