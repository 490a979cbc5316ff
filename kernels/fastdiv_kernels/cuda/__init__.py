"""The contract on NVIDIA GPUs: CUDA C++ beside thin functions that launch it, by CuPy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastdiv_kernels.cuda.batch import Batch
from fastdiv_kernels.cuda.classes import tally_classes
from fastdiv_kernels.cuda.device import Device
from fastdiv_kernels.cuda.distributions import distributions
from fastdiv_kernels.cuda.dynamics import dynamics
from fastdiv_kernels.cuda.profile import profile
from fastdiv_kernels.cuda.score import score
from fastdiv_kernels.cuda.tally import tally
from fastdiv_kernels.cuda.temper import temper
from fastdiv_kernels.cuda.temperatures import tally_temperatures
from fastdiv_kernels.cuda.transitions import transitions


class CudaBackend:
    """The functions of the contract on a device.

    Arrays may be NumPy's, which are copied there and back, or the device's, which are used where
    they lie: nothing is copied to the host that does not belong there.
    """

    name = "cuda"

    def __init__(self, device: Device) -> None:
        self._device = device
        self._local = threading.local()

    def describe(self) -> str:
        """Name the device, as the summary shows it."""
        return self.device.describe()

    def predictions(self, values: Any) -> Any:
        """Return predictions of any library as an array on the device, bfloat16 as words."""
        return self.device.put(values)

    def labels(self, values: Any) -> Any:
        """Return labels (n,) or (n, 1) as int32 on the device; None if they are no integers.

        Those that do not fit become the highest, which is no class either.
        """
        y = self.device.put(values)
        if y.dtype.kind not in "iub":
            return None
        if y.ndim == 2 and y.shape[1] == 1:
            y = y[:, 0]
        if y.dtype.itemsize > 4 or y.dtype == np.uint32:
            highest = np.iinfo(np.int32).max
            y = y.copy()
            y[(y < 0) | (y > highest)] = highest
        return self.device.put(y.astype(np.int32))

    def in_tiles(
        self, groups: Sequence[Callable[[], None]], steps: Sequence[tuple[int, int, int, int]]
    ) -> bool:
        """Call each group once for all rows, whose arrays go to the device once; see the contract.

        What a group made is on the host before the next one is called.
        """
        batch = Batch(self._device, [step[1:] for step in steps if step[0] == 0])
        self._local.batch = batch
        try:
            for group in groups:
                group()
                batch.settle()
        finally:
            self._local.batch = None
        return True

    @property
    def device(self) -> Device:
        """The device; while a batch is under way on this thread, the batch."""
        return getattr(self._local, "batch", None) or self._device

    def score(self, *arguments: Any) -> None:
        """Score each row; see the contract."""
        score(self.device, *arguments)

    def profile(self, *arguments: Any) -> None:
        """Keep of each row what its loss at other temperatures is made from; see the contract."""
        profile(self.device, *arguments)

    def tally_temperatures(self, *arguments: Any) -> None:
        """Add the losses of one epoch at each temperature of the grid; see the contract."""
        tally_temperatures(self.device, *arguments)

    def temper(self, *arguments: Any) -> None:
        """Tell each row's log-partition function at a temperature; see the contract."""
        temper(self.device, *arguments)

    def tally(self, *arguments: Any) -> None:
        """Add the stored scores of one epoch to its totals; see the contract."""
        tally(self.device, *arguments)

    def tally_classes(self, *arguments: Any) -> None:
        """Add the stored scores of one epoch to its totals by class; see the contract."""
        tally_classes(self.device, *arguments)

    def distributions(self, *arguments: Any) -> None:
        """Add the stored scores of one epoch to its distributions; see the contract."""
        distributions(self.device, *arguments)

    def transitions(self, *arguments: Any) -> None:
        """Add the same samples in two epochs to the cells of their table; see the contract."""
        transitions(self.device, *arguments)

    def dynamics(self, *arguments: Any) -> None:
        """Carry each sample's history on by one epoch; see the contract."""
        dynamics(self.device, *arguments)


def why_not() -> str | None:
    """Return why there is no device here and what to do, None where there is one."""
    from fastdiv_kernels.cuda.cupy_device import why_not

    return why_not()


def examination() -> dict[str, Any]:
    """Return the versions of CUDA and what is known of each device."""
    from fastdiv_kernels.cuda.cupy_device import devices, versions

    return {**versions(), "devices": devices()}


def load() -> CudaBackend:
    """Return the backend on CuPy's current device."""
    from fastdiv_kernels.cuda.cupy_device import CupyDevice

    return CudaBackend(CupyDevice())
