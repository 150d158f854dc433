"""Networks in ONNX Runtime, on the CPU or a CUDA GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dfs_ros.runner.base import Array, Runner, RunnerError

if TYPE_CHECKING:
    from torch import Tensor

_CUDA = "CUDAExecutionProvider"


class OnnxRunner(Runner):
    """Runs an ONNX model in ONNX Runtime.

    Parameters
    ----------
    model
        Gives the ONNX file for the number of hypotheses of the inputs: one for even numbers, one for odd ones.
    inputs
        Names of the inputs, in the order they are given in.
    device
        `auto` (CUDA where this ONNX Runtime has it), `cpu` or `cuda`.
    threads
        On the CPU.

    Raises RunnerError where ONNX Runtime is not installed or has no CUDA though it was asked for.
    """

    def __init__(
        self, model: Callable[[int], bytes], inputs: Sequence[str], device: str = "auto", threads: int = 1
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RunnerError("ONNX Runtime is not installed; `pip install dfs_ros[onnx]`") from error
        has_cuda = _CUDA in onnxruntime.get_available_providers()
        if device == "cuda" and not has_cuda:
            raise RunnerError("this ONNX Runtime has no CUDA; `pip install onnxruntime-gpu`, or use device cpu")
        self._library: Any = onnxruntime
        self._model, self._inputs, self._threads = model, tuple(inputs), threads
        self._cuda = device != "cpu" and has_cuda
        self._sessions: dict[int, Any] = {}

    @property
    def description(self) -> str:
        return f"onnxruntime {self._library.__version__} on {'cuda' if self._cuda else 'cpu'}"

    def run(self, *inputs: Array) -> Array:
        session = self._session(len(inputs[0]))
        feed = {
            name: np.ascontiguousarray(array[None], np.float32)
            for name, array in zip(self._inputs, inputs, strict=True)
        }
        try:
            output: Array = session.run(None, feed)[0][0]
        except Exception as error:  # ONNX Runtime has no class of its own for what it raises
            raise RunnerError(f"onnxruntime: {error}") from error
        return output

    def run_tensors(self, *inputs: Tensor) -> Tensor:
        import torch

        if not self._cuda or not inputs[0].is_cuda:
            output = torch.from_numpy(self.run(*(tensor.float().cpu().numpy() for tensor in inputs)))
            return output.to(inputs[0].device)
        session = self._session(len(inputs[0]))
        binding = session.io_binding()
        device = inputs[0].device.index or 0
        batches = [tensor[None].float().contiguous() for tensor in inputs]
        result = torch.empty((1, *inputs[0].shape), dtype=torch.float32, device=inputs[0].device)
        for name, batch in zip(self._inputs, batches, strict=True):
            binding.bind_input(name, "cuda", device, np.float32, tuple(batch.shape), batch.data_ptr())
        output_name = session.get_outputs()[0].name
        binding.bind_output(output_name, "cuda", device, np.float32, tuple(result.shape), result.data_ptr())
        torch.cuda.current_stream().synchronize()  # ONNX Runtime has a stream of its own
        try:
            session.run_with_iobinding(binding)
        except Exception as error:
            raise RunnerError(f"onnxruntime: {error}") from error
        return result[0]

    def _session(self, hypotheses: int) -> Any:
        parity = hypotheses % 2
        if parity not in self._sessions:
            options = self._library.SessionOptions()
            options.intra_op_num_threads = self._threads
            options.log_severity_level = 3
            providers = [_CUDA, "CPUExecutionProvider"] if self._cuda else ["CPUExecutionProvider"]
            try:
                session = self._library.InferenceSession(self._model(hypotheses), options, providers=providers)
            except Exception as error:
                raise RunnerError(f"onnxruntime: the model cannot be loaded: {error}") from error
            if self._cuda and session.get_providers()[0] != _CUDA:
                raise RunnerError("onnxruntime: CUDA was asked for and could not be started")
            names = {i.name for i in session.get_inputs()}
            if names != set(self._inputs):
                raise RunnerError(f"onnxruntime: expected inputs {sorted(self._inputs)}, the model has {sorted(names)}")
            self._sessions[parity] = session
        return self._sessions[parity]
