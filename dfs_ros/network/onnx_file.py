"""ONNX files that this package did not export itself: read within the size of the weights that they belong to.

ONNX is a message of protocol buffers; field numbers are those of onnx.proto3 (https://github.com/onnx/onnx).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

_GRAPH_BYTES = 1 << 20
"""Largest size of a file without its weights; those of models/ have 0.14 MB."""
_MOST_LEVELS = 8
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_ATTRIBUTE = 5
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_TENSOR_DIMS, _TENSOR_EXTERNAL, _TENSOR_DATA = 1, 13, (4, 5, 6, 7, 9, 10, 11)

_Field = tuple[int, "int | memoryview"]


def read_onnx(file: Path, weights: int) -> bytes:
    """Content of an ONNX file of a network with `weights` numbers.

    Raises ValueError for a file larger than its network, for a tensor larger than its data, and for what this package
    does not export and an engine would expand: sparse and external tensors, functions.
    """
    most, size = 4 * weights + _GRAPH_BYTES, file.stat().st_size
    if size > most:
        raise ValueError(f"{file}: expected at most {most} bytes, for a network of {weights} weights, received {size}")
    with file.open("rb") as stream:
        model = stream.read(most)
    try:
        for number, value in _fields(memoryview(model)):
            if number == _MODEL_FUNCTIONS:
                raise ValueError("expected no functions")
            if number == _MODEL_GRAPH:
                _check_graph(_message(value), 1)
    except ValueError as error:
        raise ValueError(f"{file}: not an ONNX file of `dfs export`: {error}") from error
    return model


def _check_graph(graph: memoryview, level: int) -> None:
    if level > _MOST_LEVELS:
        raise ValueError(f"expected at most {_MOST_LEVELS} graphs within each other")
    for number, value in _fields(graph):
        if number == _GRAPH_SPARSE:
            raise ValueError("expected no sparse tensors")
        if number == _GRAPH_INITIALIZER:
            _check_tensor(_message(value))
        elif number == _GRAPH_NODE:
            for part, attribute in _fields(_message(value)):
                if part == _NODE_ATTRIBUTE:
                    _check_attribute(_message(attribute), level)


def _check_attribute(attribute: memoryview, level: int) -> None:
    for number, value in _fields(attribute):
        if number in _ATTRIBUTE_SPARSE:
            raise ValueError("expected no sparse tensors")
        if number in _ATTRIBUTE_TENSORS:
            _check_tensor(_message(value))
        elif number in _ATTRIBUTE_GRAPHS:
            _check_graph(_message(value), level + 1)


def _check_tensor(tensor: memoryview) -> None:
    """Raise ValueError for a tensor of more numbers than bytes: an engine would allocate it first."""
    shape: list[int] = []
    held = 0
    for number, value in _fields(tensor):
        if number == _TENSOR_EXTERNAL:
            raise ValueError("expected no tensors in other files")
        if number == _TENSOR_DIMS:
            shape += [value] if isinstance(value, int) else _varints(value)
        elif number in _TENSOR_DATA:
            held += 8 if isinstance(value, int) else len(value)
    if any(side >= 1 << 31 for side in shape) or math.prod(shape) > held:
        raise ValueError(f"expected a tensor of at most {held} numbers, as its data has bytes, received shape {shape}")


def _fields(data: memoryview) -> Iterator[_Field]:
    """Numbers and values of the fields of a message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind, length = key & 7, 0
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown kind of field {kind}")
        if length > len(data) - at:
            raise ValueError("cut short")
        yield key >> 3, data[at : at + length]
        at += length


def _varints(data: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        values.append(value)
    return values


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Number of variable length at a place, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("cut short")
        byte = data[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value, at
    raise ValueError("a number of more than ten bytes")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("expected a message in the place of a number")
    return value
