"""The contract on NVIDIA GPUs: CUDA C++ beside thin functions that launch it, by CuPy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastdiv_kernels.cuda.batch import Batch, on_host
from fastdiv_kernels.cuda.classes import tally_classes
from fastdiv_kernels.cuda.device import Device
from fastdiv_kernels.cuda.distributions import distributions
from fastdiv_kernels.cuda.dynamics import dynamics
from fastdiv_kernels.cuda.flags import write_flags
from fastdiv_kernels.cuda.labels import as_int32
from fastdiv_kernels.cuda.profile import profile
from fastdiv_kernels.cuda.score import score
from fastdiv_kernels.cuda.tally import tally
from fastdiv_kernels.cuda.temper import temper
from fastdiv_kernels.cuda.temperatures import tally_temperatures
from fastdiv_kernels.cuda.transitions import transitions


class CudaBackend:
    """The functions of the contract on a device.

    Arrays may be NumPy's, which are copied there and back, or the device's, which are used where
    they lie, behind what is queued there already. Nothing is copied to the host that does not
    belong there; a call with arrays of the host alone, or of both, returns when all is done.
    """

    name = "cuda"
    copies = True

    def __init__(self, device: Device) -> None:
        self._device = device
        self._local = threading.local()

    def describe(self) -> str:
        """Name the device, as the summary shows it."""
        return self._device.describe()

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """Make an array of the host that copies reach without a detour; see the contract."""
        return self._device.empty_on_host(shape, dtype)

    @contextmanager
    def beside(self, array: Any) -> Iterator[Device]:
        """Go to the device that an array lies on, and its caller's queue there.

        Results on it are not waited for.
        """
        with self._device.beside(array) as device, self._set("device", device):
            yield device

    def labels(self, values: Any) -> Any:
        """Return labels (n,) or (n, 1) as int32 on the device; None if they are no integers."""
        return as_int32(self.device, values)

    def in_tiles(
        self, groups: Sequence[Callable[[], None]], steps: Sequence[tuple[int, int, int, int]]
    ) -> bool:
        """Call each group once for all rows, whose arrays go to the device once; see the contract.

        What they make is on the host when all have been called.
        """
        device = self.device
        with device.lane() as lane:
            batch = Batch(device, lane, [(rows, at) for group, _, rows, at in steps if group == 0])
            with self._set("batch", batch):
                for group in groups:
                    group()
            batch.settle()
        return True

    def on_host(self, values: Any) -> Any:
        """Return a copy of an array that lies on a device."""
        with self.beside(values) as device:
            return device.get(values)

    @property
    def device(self) -> Device:
        """The device that this thread works on."""
        return getattr(self._local, "device", None) or self._device

    @contextmanager
    def _set(self, name: str, value: Any) -> Iterator[None]:
        """Set what this thread works on, for a while."""
        before = getattr(self._local, name, None)
        setattr(self._local, name, value)
        try:
            yield
        finally:
            setattr(self._local, name, before)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function on the device that its arrays lie on."""
        batch = getattr(self._local, "batch", None)
        if batch is not None:
            function(batch, *arguments)
            return
        there = next((x for x in arguments if self._device.holds(x)), None)
        with self._device.beside(there) as device:
            if not any(on_host(device, x) for x in arguments):
                function(device, *arguments)
                return
            with device.lane() as lane:
                batch = Batch(device, lane)
                function(batch, *arguments)
                batch.settle()

    def write_flags(self, *arguments: Any) -> None:
        """Write what is stored of scores beside them; see the contract."""
        self._call(write_flags, *arguments)

    def score(self, *arguments: Any) -> None:
        """Score each row; see the contract."""
        self._call(score, *arguments)

    def profile(self, *arguments: Any) -> None:
        """Keep of each row what its loss at other temperatures is made from; see the contract."""
        self._call(profile, *arguments)

    def tally_temperatures(self, *arguments: Any) -> None:
        """Add the losses of one epoch at each temperature of the grid; see the contract."""
        self._call(tally_temperatures, *arguments)

    def temper(self, *arguments: Any) -> None:
        """Tell each row's log-partition function at a temperature; see the contract."""
        self._call(temper, *arguments)

    def tally(self, *arguments: Any) -> None:
        """Add the stored scores of one epoch to its totals; see the contract."""
        self._call(tally, *arguments)

    def tally_classes(self, *arguments: Any) -> None:
        """Add the stored scores of one epoch to its totals by class; see the contract."""
        self._call(tally_classes, *arguments)

    def distributions(self, *arguments: Any) -> None:
        """Add the stored scores of one epoch to its distributions; see the contract."""
        self._call(distributions, *arguments)

    def transitions(self, *arguments: Any) -> None:
        """Add the same samples in two epochs to the cells of their table; see the contract."""
        self._call(transitions, *arguments)

    def dynamics(self, *arguments: Any) -> None:
        """Carry each sample's history on by one epoch; see the contract."""
        self._call(dynamics, *arguments)


of_devices: dict[Device, CudaBackend] = {}


def why_not() -> str | None:
    """Return why there is no device here and what to do, None where there is one."""
    from fastdiv_kernels.cuda.cupy_device import why_not

    return why_not()


def examination() -> dict[str, Any]:
    """Return the versions of CUDA and what is known of each device."""
    from fastdiv_kernels.cuda.cupy_device import devices, versions

    return {**versions(), "devices": devices()}


def load() -> CudaBackend:
    """Return the backend on CuPy's current device, always the same."""
    from fastdiv_kernels.cuda.cupy_device import current_device

    device = current_device()
    return of_devices.setdefault(device, CudaBackend(device))
