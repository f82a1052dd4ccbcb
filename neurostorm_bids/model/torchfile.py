"""PyTorch's zip files (``torch.save``), read without running anything that stands in them.

Such a file is a zip archive: ``data.pkl``, a pickle of the object, and ``data/0``, ``data/1``, …,
the raw numbers of its tensors. The pickle is read by `unpickling`, which calls nothing that stands
in it.
"""

from __future__ import annotations

import io
import struct
import zipfile
from typing import TYPE_CHECKING, Any, Self

import torch

from neurostorm_bids.errors import DataError, ReadError
from neurostorm_bids.model.unpickling import InertUnpickler, Storage

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from torch import Tensor

    from neurostorm_bids.model.unpickling import StoredTensor

MAX_PICKLE_BYTES = 16 * 2**20
"""A published checkpoint's pickle takes well under 1 MiB; its tensors lie outside of it."""

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
}

# What zipfile raises for one that is damaged, depending on where.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    EOFError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
)


class TorchFile:
    """An open file of ``torch.save``; use it in a ``with`` statement.

    Attributes
    ----------
    contents : the saved object, with `StoredTensor` in place of tensors and `Inert` in place of
        objects of any other class. ``OrderedDict`` is `Inert` too, which is a dict.

    Raises
    ------
    DataError
        If the file is not such an archive, or declares sizes that do not fit the file.
    ReadError
        If reading breaks off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = self._open()
            try:
                self._check_members()
                self.contents = self._read_pickle()
            except BaseException:
                self._zip.close()
                raise
        except OSError as err:
            raise ReadError(f"Reading {path} broke off: {err}. Try again.") from err

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._zip.close()

    def read_tensor(self, stored: StoredTensor) -> Tensor:
        """Read one tensor as float32, contiguous, in memory of its own.

        Raises
        ------
        DataError
            If its numbers are not floating point, or do not lie where the file says.
        """
        storage = stored.storage
        if not isinstance(storage, Storage):
            raise self._error("a tensor without a storage")
        dtype = _DTYPES.get(storage.kind) if isinstance(storage.kind, str) else None
        if dtype is None:
            raise self._error(f"a weight of type {storage.kind!r:.80}, not floating point")
        member = self._members.get(f"data/{storage.key}")
        if (
            member is None
            or not are_sizes([storage.n_elements])
            or member.file_size != storage.n_elements * dtype.itemsize
        ):
            raise self._error(f"a storage ({storage!r:.120}) that is not there in full")
        if not _lies_within(stored, storage.n_elements):
            raise self._error(f"a tensor that does not lie within its storage: {stored!r:.200}")
        numbers = torch.frombuffer(bytearray(self._read(member)), dtype=dtype)
        tensor = numbers.as_strided(stored.shape, stored.stride, stored.offset)
        return tensor.to(torch.float32).clone(memory_format=torch.contiguous_format)

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._path)
        except _ZIP_ERRORS as err:
            raise DataError(
                f"{self._path} is not a zip archive of PyTorch ({err}). It may be damaged, cut off "
                "by a broken download, or written by PyTorch before 1.6. Fetch it again; write an "
                "old file anew, where you trust it, with torch.save(torch.load(FILE), NEW_FILE)."
            ) from err

    def _check_members(self) -> None:
        """Index the members by their name below the archive's one folder; check their sizes."""
        members = self._zip.infolist()
        # PyTorch never compresses. Without compression no member unpacks to more than it takes, and
        # the sum tells members that lie on top of each other.
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise self._error("compressed members, which PyTorch does not write")
        if sum(member.file_size for member in members) > self._path.stat().st_size:
            raise self._error("members that are larger together than the file")
        pickles = [m.filename for m in members if m.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise self._error(f"{len(pickles)} members named data.pkl in place of one")
        folder = pickles[0].removesuffix("data.pkl")
        self._members = {
            member.filename.removeprefix(folder): member
            for member in members
            if member.filename.startswith(folder)
        }

    def _read_pickle(self) -> Any:  # noqa: ANN401 - whatever was saved
        member = self._members["data.pkl"]
        if member.file_size > MAX_PICKLE_BYTES:
            raise self._error(
                f"a data.pkl of {member.file_size} bytes; up to {MAX_PICKLE_BYTES} are read"
            )
        byte_order = self._members.get("byteorder")
        if byte_order is not None and self._read(byte_order) != b"little":
            raise self._error("numbers with their bytes in big-endian order")
        stream = io.BytesIO(self._read(member))
        try:
            return InertUnpickler(stream, encoding="utf-8").load()
        except Exception as err:
            # Whatever a broken or hostile pickle makes the unpickler trip over.
            raise self._error(f"a pickle that cannot be read ({err!r:.200})") from err

    def _read(self, member: zipfile.ZipInfo) -> bytes:
        try:
            return self._zip.read(member)
        except _ZIP_ERRORS as err:
            raise self._error(f"a damaged member {member.filename!r} ({err})") from err

    def _error(self, found: str) -> DataError:
        return DataError(
            f"{self._path} cannot be read as a checkpoint of PyTorch: found {found}. "
            "Compare its SHA-256 with the publisher's, and fetch it again."
        )


def are_sizes(values: object) -> bool:
    """Say whether these are whole numbers, none below 0, as a shape holds them."""
    return isinstance(values, list | tuple) and all(
        isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values
    )


def _lies_within(stored: StoredTensor, n_elements: int) -> bool:
    """Say whether a tensor fits its storage, without repeating elements of it."""
    _, offset, shape, stride = stored
    if not (are_sizes([offset]) and are_sizes(shape) and are_sizes(stride)):
        return False
    if len(shape) != len(stride) or 0 in shape:
        return False
    n_own = 1
    last = offset
    for size, step in zip(shape, stride, strict=True):
        n_own *= size
        last += (size - 1) * step
    return bool(n_own <= n_elements and last < n_elements)
