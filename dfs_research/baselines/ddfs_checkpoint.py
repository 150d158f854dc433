"""Loader of the DDFS authors' checkpoints. Pickled code is never run.

Their checkpoints are PyTorch files with the tensors of an encoder (conv1 ... conv5) and a decoder (upconv0 ... upconv4,
iconv3, iconv4, score_conv3, cost_aggregation2/1/0 with iconvs, score_convs, offset_convs and weight_convs), in one file
or two, with or without `module.` and `encoder.` or `decoder.` before the names. They fit our network of the `released`
wiring. For `dfs eval`, convert a checkpoint to one of our files:

    network = load_authors_checkpoint("encoder.pth", "decoder.pth")
    save_network("authors.safetensors", network.state_dict(), network.architecture, {"made by": "the authors"})
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfs_research.baselines.ddfs import DdfsArchitecture, DdfsNetwork

_ENCODER = re.compile(r"conv[1-5]\.")
_DECODER = re.compile(r"(upconv[0-4]|iconv[34]|score_conv3|cost_aggregation[012])\.")
_WRAPPERS = ("module.", "encoder.", "decoder.", "state_dict.", "model.")
_MOST_NAMES = 4


def load_authors_checkpoint(*files: str | Path, wiring: str = "released", spacing: str = "linear") -> DdfsNetwork:
    """Load a DDFS network from one file, or from an encoder's and a decoder's.

    The checkpoint gives the number of hypotheses. `.safetensors` files are read as such, all others by
    `torch.load(weights_only=True)`, which refuses everything but tensors and plain containers. Raises
    FileNotFoundError, or ValueError for an unreadable file, for weights that are missing, misshapen or unknown, and for
    the `paper` wiring.
    """
    if wiring != "released":
        raise ValueError(
            f"wiring {wiring}: a checkpoint of the DDFS authors was trained with the released wiring, in which both "
            "512-wide decoder stages share their weights; it fits no other"
        )
    if not files:
        raise ValueError("checkpoint: expected one file, or those of encoder and decoder, received none")
    named: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in _flattened(_read(Path(file))):
            named[_our_name(name, file)] = tensor
    network = DdfsNetwork(_architecture(named, files, spacing))
    mine = network.state_dict()
    # Files of old PyTorch versions have no num_batches_tracked.
    missing = sorted(name for name in mine if name not in named and not name.endswith("num_batches_tracked"))
    unknown = sorted(name for name in named if name not in mine)
    if missing or unknown:
        raise ValueError(
            f"checkpoint {_names(files)}: not that of a DDFS network: "
            f"{len(missing)} weights missing ({_some(missing)}), {len(unknown)} unknown ({_some(unknown)})"
        )
    wrong = sorted(name for name in named if named[name].shape != mine[name].shape)
    if wrong:
        raise ValueError(
            f"checkpoint {_names(files)}: {wrong[0]}: expected shape {tuple(mine[wrong[0]].shape)}, "
            f"received {tuple(named[wrong[0]].shape)}"
        )
    network.load_state_dict(named, strict=False)
    return network.eval()


def _read(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"checkpoint {file}: no such file")
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(str(file))
        except SafetensorError as error:
            raise ValueError(f"checkpoint {file}: not readable as safetensors: {error}") from error
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises anything, and so does a damaged archive
        raise ValueError(
            f"checkpoint {file}: expected a PyTorch file that holds tensors and nothing else: {_first_line(error)}; "
            "save `network.state_dict()`, or convert it to safetensors"
        ) from error
    if not isinstance(loaded, Mapping):
        raise ValueError(f"checkpoint {file}: expected a dictionary of tensors, received {type(loaded).__name__}")
    return loaded


def _flattened(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Tensor]]:
    """(name, tensor) of nested dictionaries; other entries (epoch, ...) are skipped."""
    flat: list[tuple[str, Tensor]] = []
    for name, value in values.items():
        if isinstance(value, Tensor):
            flat.append((f"{prefix}{name}", value))
        elif isinstance(value, Mapping) and str(name) not in ("optimizer", "optim", "scheduler"):
            flat += _flattened(value, f"{prefix}{name}.")
    return flat


def _our_name(name: str, file: str | Path) -> str:
    bare = name
    while bare.startswith(_WRAPPERS):
        bare = bare[bare.index(".") + 1 :]
    if _ENCODER.match(bare):
        return f"encoder.{bare}"
    if _DECODER.match(bare):
        return f"decoder.{bare}"
    raise ValueError(
        f"checkpoint {file}: {name!r} is no weight of a DDFS network, which has conv1 ... cost_aggregation0"
    )


def _architecture(named: Mapping[str, Tensor], files: tuple[str | Path, ...], spacing: str) -> DdfsArchitecture:
    first, scores = named.get("encoder.conv1.0.weight"), named.get("decoder.score_conv3.0.bias")
    if first is None or scores is None:
        lacking = "encoder (conv1.0.weight)" if first is None else "decoder (score_conv3.0.bias)"
        raise ValueError(f"checkpoint {_names(files)}: weights of the {lacking} are missing; give both files")
    return DdfsArchitecture(hypotheses=len(scores), spacing=spacing)


def _names(files: tuple[str | Path, ...]) -> str:
    return ", ".join(str(file) for file in files)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "") if names else "none"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
