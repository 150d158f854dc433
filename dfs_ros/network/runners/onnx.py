"""Networks in ONNX Runtime, on the CPU or a CUDA GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dfs_ros.network.runners.base import Array, Golden, Runner, RunnerError, RunnerMissing

if TYPE_CHECKING:
    from torch import Tensor

_CUDA = "CUDAExecutionProvider"


class OnnxRunner(Runner):
    """Runner of an ONNX model in ONNX Runtime.

    Parameters
    ----------
    model
        Function that returns the ONNX file, called at the first volume.
    inputs
        Names of the inputs, in order.
    device
        `auto` (CUDA if this ONNX Runtime has it), `cpu` or `cuda`.
    threads
        On the CPU.
    golden
        Golden test before the model is used; None: no test.
    precision
        For the description.

    Raises RunnerMissing if ONNX Runtime is not installed or lacks a requested CUDA.
    """

    def __init__(
        self,
        model: Callable[[], bytes],
        inputs: Sequence[str],
        device: str = "auto",
        threads: int = 1,
        golden: Golden | None = None,
        precision: str = "fp32",
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RunnerMissing("ONNX Runtime is not installed; `pip install dfs_ros[onnx]`") from error
        has_cuda = _CUDA in onnxruntime.get_available_providers()
        if device == "cuda" and not has_cuda:
            raise RunnerMissing("this ONNX Runtime has no CUDA; `pip install onnxruntime-gpu`, or use device cpu")
        self._library: Any = onnxruntime
        self._model, self._inputs, self._threads = model, tuple(inputs), threads
        self._golden, self._precision = golden, precision
        self._cuda = device != "cpu" and has_cuda
        self._session: Any = None

    @property
    def description(self) -> str:
        return f"onnxruntime {self._library.__version__} {self._precision} on {'cuda' if self._cuda else 'cpu'}"

    def run(self, *inputs: Array) -> Array:
        return self._answer(self._ready(), inputs)

    def run_tensors(self, *inputs: Tensor) -> Tensor:
        import torch

        session = self._ready()
        if not self._cuda or not inputs[0].is_cuda:
            answer = self._answer(session, [tensor.float().cpu().numpy() for tensor in inputs])
            return torch.from_numpy(answer).to(inputs[0].device)
        binding = session.io_binding()
        device = inputs[0].device.index or 0
        batches = [tensor[None].float().contiguous() for tensor in inputs]
        result = torch.empty((1, *inputs[0].shape), dtype=torch.float32, device=inputs[0].device)
        for name, batch in zip(self._inputs, batches, strict=True):
            binding.bind_input(name, "cuda", device, np.float32, tuple(batch.shape), batch.data_ptr())
        output_name = session.get_outputs()[0].name
        binding.bind_output(output_name, "cuda", device, np.float32, tuple(result.shape), result.data_ptr())
        torch.cuda.current_stream().synchronize()  # ONNX Runtime uses its own stream
        try:
            session.run_with_iobinding(binding)
        except Exception as error:
            raise RunnerError(f"onnxruntime: {error}") from error
        return result[0]

    def _answer(self, session: Any, inputs: Sequence[Array]) -> Array:
        feed = {
            name: np.ascontiguousarray(array[None], np.float32)
            for name, array in zip(self._inputs, inputs, strict=True)
        }
        try:
            output: Array = session.run(None, feed)[0][0]
        except Exception as error:  # ONNX Runtime has no exception class
            raise RunnerError(f"onnxruntime: {error}") from error
        return output

    def _ready(self) -> Any:
        """Session, tested by the golden inputs."""
        if self._session is None:
            session = self._loaded()
            if self._golden is not None:
                self._golden.check(self.description, self._answer(session, self._golden.inputs()))
            self._session = session
        return self._session

    def _loaded(self) -> Any:
        options = self._library.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        providers = [_CUDA, "CPUExecutionProvider"] if self._cuda else ["CPUExecutionProvider"]
        try:
            session = self._library.InferenceSession(self._model(), options, providers=providers)
        except RunnerError:
            raise
        except Exception as error:
            raise RunnerError(f"onnxruntime: the model cannot be loaded: {error}") from error
        if self._cuda and session.get_providers()[0] != _CUDA:
            raise RunnerError("onnxruntime: CUDA was asked for and could not be started")
        names = {i.name for i in session.get_inputs()}
        if names != set(self._inputs):
            raise RunnerError(f"onnxruntime: expected inputs {sorted(self._inputs)}, the model has {sorted(names)}")
        return session
