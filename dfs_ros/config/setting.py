"""Settings as dataclass fields with description, unit and range, and the check of their values."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from dataclasses import field
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

MAX_YAML_BYTES = 1 << 20
MAX_YAML_VALUES = 100_000


def setting(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    dynamic: bool = False,
) -> Any:
    """Dataclass field with description, unit, inclusive range or choices; `dynamic`: may change while a node runs."""
    metadata = {"doc": doc, "unit": unit, "low": low, "high": high, "choices": choices, "dynamic": dynamic}
    return field(default=default, metadata=metadata)


def unknown_name(name: str, known: Any, what: str) -> str:
    """Error message for an unknown name, with the closest known one."""
    close = difflib.get_close_matches(name.rpartition(".")[2], list(known), 1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{name}: unknown {what}; {hint}known: {', '.join(sorted(known))}"


def read_yaml(path: Path, name: str) -> Any:
    """Plain values of a YAML file. Raises FileNotFoundError or ValueError, which begin with `name`."""
    if not path.is_file():
        raise FileNotFoundError(f"{name}: no such file")
    size = path.stat().st_size
    if size > MAX_YAML_BYTES:
        raise ValueError(f"{name}: expected at most {MAX_YAML_BYTES} bytes, received {size}")
    try:
        return plain_yaml(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{name}: not readable as YAML: {_yaml_problem(error)}") from error


def plain_yaml(text: str) -> Any:
    """Plain values of YAML text. Raises ValueError; also for values that aliases make too many."""
    import yaml

    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        values = _expanded(node, {})
        if values > MAX_YAML_VALUES:
            raise ValueError(f"expected at most {MAX_YAML_VALUES} values, received {values:.3g}, aliases expanded")
        return loader.construct_document(node)
    except ValueError:
        raise
    except (MemoryError, OSError):
        raise
    except (LookupError, AttributeError, TypeError) as error:  # of PyYAML's constructors, for `!!bool x` and the like
        raise ValueError("a value does not fit its tag, such as !!bool or !!int") from error
    except Exception as error:
        raise ValueError(_yaml_problem(error)) from error
    finally:
        if loader is not None:
            loader.dispose()


def _expanded(node: Any, known: dict[int, float]) -> float:
    """Number of values of a YAML node with its aliases expanded; infinite for one within itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        children = node.value if isinstance(node.value, list) else ()
        pairs = (part for child in children for part in (child if isinstance(child, tuple) else (child,)))
        known[id(node)] = 1 + sum(_expanded(part, known) for part in pairs)
    return known[id(node)]


def _yaml_problem(error: Exception) -> str:
    """Text of a YAML error, on one line."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem and mark:
        return f"line {mark.line + 1}: {problem}"
    return " ".join(str(error).split())


def checked(value: Any, setting_field: dataclasses.Field[Any], section: type, section_name: str) -> Any:
    """Convert a value to its setting's type.

    Raises ValueError for another type, a value out of range or not finite.
    """
    name = f"{section_name}.{setting_field.name}"
    meta = setting_field.metadata
    expected = _hints(section)[setting_field.name]
    value = _as_meant(value, expected, meta["choices"] or ())
    if type(value) is not expected:
        raise ValueError(f"{name}: expected {expected.__name__}, received {value!r}")
    if meta["choices"] is not None and value not in meta["choices"]:
        raise ValueError(f"{name}: expected one of {', '.join(meta['choices'])}, received {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, received {value}")
    low, high = meta["low"], meta["high"]
    if (low is not None and value < low) or (high is not None and value > high):
        unit = f" {meta['unit']}" if meta["unit"] else ""
        raise ValueError(f"{name}: expected {low} to {high}{unit}, received {value}")
    return value


@functools.cache
def _hints(section: type) -> dict[str, Any]:
    return get_type_hints(section)  # slow: compiles each annotation


def _as_meant(value: Any, expected: type, choices: tuple[str, ...]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    # YAML 1.1 reads `1e-3` as text, for want of a point, and `off` as false.
    if expected is float and type(value) in (int, str):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return value
    return "off" if value is False and "off" in choices else value


def numbers(text: str, name: str) -> tuple[float, ...]:
    """Numbers with commas between; none for empty text. Raises ValueError, with `name`.

    >>> numbers("2.2, 1.1,0.5", "schedule.focus_diopters")
    (2.2, 1.1, 0.5)
    """
    try:
        return tuple(float(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise ValueError(
            f"{name}: expected numbers with commas between, such as 2.2,1.1,0.5, received {text!r}"
        ) from None
