# SPDX-License-Identifier: Apache-2.0
"""The device's network in ONNX Runtime, stage by stage, each stage able to be cut short."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fleet.bundle import Bundle, Precision
from fleet.codec import FloatArray
from fleet.errors import FleetError
from fleet.packet import PICTURE


class CancelledError(Exception):
    """A stage was cut short because its inference is over."""


@dataclass(frozen=True)
class StageOutput:
    """What one stage gives.

    Attributes:
        features: the map for the next stage, shape (1, C, H, W); for the head, logits of shape (1, classes).
        latent: what travels, shape (c, g, g); None behind the last stage that is sent.
    """

    features: FloatArray
    latent: FloatArray | None


class DeviceNetwork:
    """The stages and the head of a bundle.

    Args:
        bundle: the model.
        precision: which of its ONNX files to run.
        threads: threads of one stage.

    Raises:
        FleetError: ONNX Runtime cannot load a stage.
    """

    def __init__(self, bundle: Bundle, *, precision: Precision = "float", threads: int = 1) -> None:
        import onnxruntime as ort  # noqa: PLC0415 - heavy, and only the device needs it

        self.bundle = bundle
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Spinning threads would burn a core between stages.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._run_options: Any = ort.RunOptions

        def load(path: Path) -> Any:
            try:
                return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            except Exception as err:  # every fault of the library derives from Exception alone
                raise FleetError(f"{path} cannot be run: {_first_line(err)}") from err

        self._sessions = {stage.n: load(bundle.stage_path(stage, precision)) for stage in bundle.stages}
        self._picture = load(bundle.stage_path(bundle.picture, precision)) if bundle.picture else None
        self._local = {n: load(bundle.local_path(head)) for n, head in bundle.local_exits.items()}
        self._lock = threading.Lock()
        self._running: Any = None

    @property
    def stage_numbers(self) -> tuple[int, ...]:
        """The stages in order, the head last."""
        return tuple(stage.n for stage in self.bundle.stages)

    def prepare(self, image: npt.NDArray[np.uint8]) -> FloatArray:
        """The network's input: the central square, scaled and normalised.

        Args:
            image: RGB, shape (H, W, 3).

        Returns:
            Shape (1, 3, size, size).
        """
        height, width = image.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square: npt.NDArray[Any] = image[top : top + side, left : left + side]
        size = self.bundle.input_size
        if side != size:
            square = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)
        scaled = square.astype(np.float32) / np.float32(255)
        normal = (scaled - np.asarray(self.bundle.mean, np.float32)) / np.asarray(self.bundle.std, np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])  # (1, 3, size, size)

    def run(self, n: int, features: FloatArray) -> StageOutput:
        """Run one stage.

        Args:
            n: its number.
            features: the output of the stage before, or of :meth:`prepare`.

        Raises:
            CancelledError: :meth:`cancel` was called from another thread meanwhile.
            FleetError: the stage does not take these features.
        """
        outputs = self._run(self._sessions[n], f"stage {n}", features)
        return StageOutput(outputs[0], outputs[1][0] if len(outputs) > 1 else None)

    def run_picture(self, image: FloatArray) -> FloatArray:
        """What travels of the picture itself; only for bundles that have a stage 0.

        Args:
            image: of :meth:`prepare`.

        Returns:
            Shape (c, g, g).

        Raises:
            CancelledError: :meth:`cancel` was called from another thread meanwhile.
            FleetError: the stage does not take this image.
        """
        assert self._picture is not None
        latent: FloatArray = self._run(self._picture, f"stage {PICTURE}", image)[0][0]
        return latent

    def run_local(self, n: int, features: FloatArray) -> FloatArray:
        """Run the local exit behind a stage.

        Args:
            n: the stage's number.
            features: its output, shape (1, C, H, W).

        Returns:
            Logits, shape (1, classes).

        Raises:
            CancelledError: :meth:`cancel` was called from another thread meanwhile.
            FleetError: the exit does not take these features.
        """
        logits: FloatArray = self._run(self._local[n], f"local exit {n}", features)[0]
        return logits

    def _run(self, session: Any, what: str, features: FloatArray) -> Any:
        options = self._run_options()
        with self._lock:
            self._running = options
        try:
            return session.run(None, {session.get_inputs()[0].name: features}, options)
        except Exception as err:
            if options.terminate:
                raise CancelledError(what) from err
            raise FleetError(f"{what} of {self.bundle.path} failed: {_first_line(err)}") from err
        finally:
            with self._lock:
                self._running = None

    def cancel(self) -> None:
        """Cut the running stage or local exit short, if one runs (callable from any thread)."""
        with self._lock:
            if self._running is not None:
                self._running.terminate = True


def _first_line(err: Exception) -> str:
    return str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
