"""Network files: safetensors that describe their network. Pickle is never loaded."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfs_ros.system.atomic import atomic_file
from dfs_ros.system.folders import share_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dfs_ros.network.light import LightNetwork

FORMAT = "dfs_ros network 1"
_SUFFIX = ".safetensors"


@dataclasses.dataclass(frozen=True)
class NetworkKind:
    """Classes of one kind of network: `network(architecture(**settings))`."""

    architecture: type
    network: Callable[[Any], nn.Module]


def _light() -> NetworkKind:
    from dfs_ros.network.light import LightArchitecture, LightNetwork

    return NetworkKind(LightArchitecture, LightNetwork)


_KINDS: dict[str, Callable[[], NetworkKind]] = {"light": _light}


def register_network(kind: str, made: Callable[[], NetworkKind]) -> None:
    """Register a kind of network; `made` is called at its first file."""
    _KINDS[kind] = made


def model_file(name: str) -> Path:
    """File of a model: a name in models/, or the path of a safetensors file.

    Raises FileNotFoundError with a list of the known models.
    """
    if name.endswith(_SUFFIX):
        if not Path(name).is_file():
            raise FileNotFoundError(f"network {name}: no such file")
        return Path(name)
    known = known_models()
    if name not in known:
        raise FileNotFoundError(
            f"network {name!r}: unknown model; known: {', '.join(sorted({'none', *known}))}, "
            f"or give the path of a {_SUFFIX} file"
        )
    return share_folder("models") / f"{name}{_SUFFIX}"


def known_models() -> list[str]:
    """Names of the models of the package."""
    try:
        folder = share_folder("models")
    except FileNotFoundError:
        return []
    return sorted(path.stem for path in folder.glob(f"*{_SUFFIX}"))


def save_network(
    file: str | Path,
    weights: Mapping[str, Tensor],
    architecture: object,
    training: Mapping[str, Any],
    sigma_scale: float = 1.0,
) -> None:
    """Write weights with their description, atomically. `training`: facts for people. Raises OSError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    metadata = {
        "format": FORMAT,
        "network": _kind_of(architecture),
        "architecture": json.dumps(dataclasses.asdict(architecture)),  # type: ignore[call-overload]
        "training": json.dumps(dict(training)),
        "sigma_scale": repr(float(sigma_scale)),
    }
    with atomic_file(file) as partial:
        try:
            save_file(dict(weights), partial, metadata)
        except SafetensorError as error:  # a full disk, mostly
            raise OSError(f"network {file}: cannot be written: {error}") from error
        partial.chmod(0o644)  # safetensors writes private files


def training_facts(file: str | Path) -> dict[str, Any]:
    """Training facts stored by :func:`save_network`; empty if there are none."""
    facts = _metadata(file).get("training", "{}")
    try:
        return dict(json.loads(facts))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"network {file}: expected training facts as JSON, received {facts[:40]!r}") from error


def sigma_scale_of(file: str | Path) -> float:
    """Calibration factor of the network's sigma; 1 if the file has none.

    Raises ValueError for a factor that is not a positive number.
    """
    text = _metadata(file).get("sigma_scale", "1.0")
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"network {file}: expected a positive sigma_scale in its metadata, received {text!r}")
    return scale


def load_weights(file: str | Path) -> LightNetwork:
    """Load a light network. Raises ValueError for a foreign, other or damaged file."""
    from dfs_ros.network.light import LightNetwork

    module = load_module(file)
    if not isinstance(module, LightNetwork):
        raise ValueError(
            f"network {file}: a {type(module).__name__}, which is there to be compared with (`dfs eval`); "
            "an estimator runs light networks"
        )
    return module


def load_module(file: str | Path) -> nn.Module:
    """Load a network of any kind. Raises ValueError for a foreign or damaged file."""
    from safetensors.torch import load_file

    metadata = _metadata(file)
    with _readable(file):
        tensors = load_file(str(file))
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"network {file}: expected format {FORMAT!r}, received {metadata.get('format')!r}; "
            "`dfs train` writes such files"
        )
    kind = metadata.get("network", "light")
    if kind not in _KINDS:
        raise ValueError(f"network {file}: unknown network {kind!r}; known: {', '.join(_KINDS)}")
    try:
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in json.loads(metadata["architecture"]).items()
        }
        _check_sizes(values, tensors)
        network = make_network(kind, values)
        network.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"network {file}: weights and architecture do not fit this version: {error}; `dfs train` makes others"
        ) from error
    return network


def _check_sizes(architecture: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError for an architecture larger than the weights: it would be allocated first."""
    # A side counts only where the file has its numbers: [10**9, 0] is 12 bytes of a header.
    largest = max((max(tensor.shape, default=1) for tensor in tensors.values() if tensor.numel()), default=1)
    most, held = max(largest, len(tensors)), sum(tensor.numel() for tensor in tensors.values())
    sizes = [1, 1]
    for name, value in architecture.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and abs(number) > most:
                raise ValueError(f"{name}: expected at most {most}, as in the weights")
            sizes += [abs(number)] if isinstance(number, int) else []
    one, other = sorted(sizes)[-2:]
    if one * other > held:  # a convolution from one to the other has as many weights, and more
        raise ValueError(f"sizes {one} and {other}: expected a product of at most {held}, the weights in the file")


def _metadata(file: str | Path) -> dict[str, str]:
    from safetensors import safe_open

    with _readable(file), safe_open(str(file), framework="pt") as opened:
        return opened.metadata() or {}


@contextmanager
def _readable(file: str | Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, KeyError, RuntimeError, TypeError) as error:  # of a damaged header
        raise ValueError(f"network {file}: not readable as safetensors: {error}") from error


def make_network(kind: str, architecture: Mapping[str, Any]) -> nn.Module:
    """Make a new network of a kind from the settings of its architecture.

    Raises KeyError for an unknown kind, TypeError and ValueError for wrong settings.
    """
    made = _KINDS[kind]()
    return made.network(made.architecture(**architecture))


def _kind_of(architecture: object) -> str:
    for kind, made in _KINDS.items():
        if isinstance(architecture, made().architecture):
            return kind
    raise TypeError(f"architecture: expected that of a network, received {type(architecture).__name__}")
