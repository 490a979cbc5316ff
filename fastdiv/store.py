"""Store: (epoch, slot) to what is kept of Scores, an `EpochFile` for each epoch."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from fastdiv.disk import copy_file
from fastdiv.epoch_file import EpochFile
from fastdiv.errors import DataError
from fastdiv_kernels.contract import profile_width

LARGEST_BLOCK = 1 << 16
SMALLEST_BLOCK = 1 << 6
USUAL_BLOCK = 1 << 12
OPEN_FILES = 64  # mapped at once


class Store:
    """The stored scores of one split, an EpochFile for each epoch."""

    def __init__(
        self, directory: Path, loss_dtype: np.dtype[Any], classes: int, width: int, block: int
    ) -> None:
        self.directory = directory
        self.loss_dtype = loss_dtype
        self.classes = classes
        self.width = width  # of a profile
        self.block = block
        self.files: dict[int, EpochFile] = {}
        self._spare: EpochFile | None = None  # of an epoch that is over, for the next one
        self._mapped: OrderedDict[int, None] = OrderedDict()

    @classmethod
    def create(
        cls, directory: Path, loss_dtype: np.dtype[Any], classes: int, profiles: bool,
        expected: int,
    ) -> Store:  # fmt: skip
        """Make an empty store, with blocks that suit the samples expected (0: unknown)."""
        directory.mkdir(parents=True)
        block = 1 << max(expected - 1, 1).bit_length() if expected else USUAL_BLOCK
        block = min(max(block, SMALLEST_BLOCK), LARGEST_BLOCK)
        width = profile_width(classes) if profiles else 0
        return cls(directory, loss_dtype, classes, width, block)

    @classmethod
    def open(cls, directory: Path, classes: int) -> Store:
        """Open a saved store."""
        meta = json.loads((directory / "store.json").read_text())
        width = meta.get("profile_width", 0)  # the first versions kept none
        block = meta["block"]
        usable = isinstance(block, int) and block > 0 and block & (block - 1) == 0
        if not usable or width not in (0, profile_width(classes)):
            raise DataError(
                f"{directory}: the saved run is damaged: blocks of {block!r} samples and {width!r} "
                f"numbers a vector of {classes} classes are none that can have been written"
            )
        store = cls(directory, np.dtype(meta["loss_dtype"]), classes, width, block)
        for epoch, entry in meta["epochs"].items():
            file = store._new(int(epoch))
            file.blocks = entry["blocks"]
            file.filled = file.blocks * store.block
            if not file.path.is_file() or file.path.stat().st_size < file.blocks * file.block_bytes:
                raise DataError(f"{file.path} is missing or too short: the saved run is damaged")
            file.relabelled = entry["relabelled"]
            file.saved = True
            if file.relabelled and not file.labels_path.is_file():
                raise DataError(f"{file.labels_path} is missing: the saved run is damaged")
            store.files[int(epoch)] = file
        return store

    def describe(self, directory: Path) -> None:
        """Write into `directory` what is needed to open the store there."""
        epochs = {
            epoch: {"blocks": file.blocks, "relabelled": file.relabelled}
            for epoch, file in self.files.items()
        }
        meta = {
            "loss_dtype": self.loss_dtype.name,
            "profile_width": self.width,
            "block": self.block,
            "epochs": epochs,
        }
        (directory / "store.json").write_text(json.dumps(meta))

    def _new(self, epoch: int) -> EpochFile:
        path = self.directory / f"epoch_{epoch:06d}.scores"
        return EpochFile(path, self.block, self.loss_dtype, self.classes, self.width)

    def epoch(self, epoch: int) -> EpochFile:
        """Return the file of an epoch, made if there is none, ready for use."""
        if epoch not in self.files:
            file = self.files[epoch] = self._new(epoch)
            if self._spare is not None:
                file.take_over(self._spare)
                self._spare = None
        last = next(reversed(self._mapped), None)
        if last is not None and last != epoch and last in self.files:
            self.files[last].close()  # one at a time is written
        self._mapped[epoch] = None
        self._mapped.move_to_end(epoch)
        if len(self._mapped) > OPEN_FILES:
            oldest, _ = self._mapped.popitem(last=False)
            if oldest in self.files:
                self.files[oldest].unmap()
        return self.files[epoch]

    def copy(self, directory: Path) -> Store:
        """Return a store of the same content in another directory, which is made."""
        directory.mkdir(parents=True)
        store = Store(directory, self.loss_dtype, self.classes, self.width, self.block)
        for epoch, file in self.files.items():
            file.settle()
            other = store.files[epoch] = store._new(epoch)
            for old, new in ((file.path, other.path), (file.labels_path, other.labels_path)):
                if old.exists():
                    copy_file(old, new)
            other.blocks, other.filled = file.blocks, file.filled
            other.relabelled, other.highest = file.relabelled, dict(file.highest)
        return store

    def trim(self, samples: int) -> None:
        """Cut off the room for growth that was not used."""
        if self._spare is not None:
            self._spare.remove()
            self._spare = None
        blocks = -(-samples // self.block)
        for file in self.files.values():
            file.settle()
            if file.blocks > blocks:
                file.unmap()
                os.truncate(file.path, blocks * file.block_bytes)
                if file.relabelled:
                    os.truncate(file.labels_path, blocks * file.block * 4)
                file.blocks = blocks

    def drop(self, epoch: int) -> None:
        """Forget an epoch."""
        self._mapped.pop(epoch, None)
        self.files.pop(epoch).remove()

    def retire(self, epoch: int) -> None:
        """Forget an epoch, and write the next one over it: fresh pages take twice as long."""
        if self._spare is None and self.files[epoch].blocks:
            self._mapped.pop(epoch, None)
            self._spare = self.files.pop(epoch)
        else:
            self.drop(epoch)

    def move(self, directory: Path) -> None:
        """Note that the files now lie elsewhere."""
        self.directory = directory
        for file in self.files.values():
            file.unmap()
            file.path = directory / file.path.name
