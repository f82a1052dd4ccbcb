"""PyTorch's zip files (``torch.save``), read without running anything that stands in them.

Such a file is a zip archive: ``data.pkl``, a pickle of the object, and ``data/0``, ``data/1``, …,
the raw numbers of its tensors. A pickle is a program: it may name any function of any installed
module and call it. The one here is read by an unpickler that resolves no name to real code. Tensors
become descriptions (`StoredTensor`), everything else that is not a plain number, string, tuple,
list or dict becomes an `Inert` stand-in. So files open whose classes are not installed, optimizer
states cost no memory, and there is nothing that a malicious file could call.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeVar

import torch

from neurostorm_bids.errors import DataError, ReadError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from torch import Tensor

Tuple = TypeVar("Tuple", bound=tuple[Any, ...])

MAX_PICKLE_BYTES = 16 * 2**20
"""A published checkpoint's pickle takes well under 1 MiB; its tensors lie outside of it."""

MAX_VALUES = 1_000_000
MAX_NESTING = 50
"""Values in what is used of a pickle, counted as often as they are referred to; their nesting.

A pickle may refer to one value any number of times: sixty lists of two, each twice the one before,
take a few hundred bytes and cannot be spelt out in any memory.
"""

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
}

_MAX_BITS = 64

# What zipfile raises for one that is damaged, depending on where.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    EOFError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
)


class Storage(NamedTuple):
    """A run of numbers in the archive: member ``data/<key>``. Its fields are as yet unchecked."""

    kind: Any
    key: Any
    n_elements: Any


class StoredTensor(NamedTuple):
    """A tensor's place in a storage, in elements. Its fields are as yet unchecked."""

    storage: Any
    offset: Any
    shape: Any
    stride: Any


class Inert(dict[Any, Any]):
    """Stand-in for an object of any class: keeps items and attributes as items, does nothing.

    Keeping them lets ``hyper_parameters`` be read that are a Namespace or another program's dict.
    """

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        super().__init__()

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __call__(self, *_args: object, **_kwargs: object) -> Inert:  # noqa: D102
        return Inert()

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.update(state)

    def append(self, item: object) -> None:
        """Drop an item: the class may have been a list."""

    def extend(self, items: object) -> None:
        """Drop items: the class may have been a list."""

    def add(self, item: object) -> None:
        """Drop an item: the class may have been a set."""


class _InertDict(Inert):
    """Stand-in for an OrderedDict: what is set on one beside its items is not one of them."""

    def __setstate__(self, state: object) -> None:
        pass


# Python's own implementation, not the C one: that sizes its memo by the largest index that the
# pickle names, so that a few bytes can ask for gigabytes.
class _InertUnpickler(pickle._Unpickler):  # noqa: SLF001
    """Reads a pickle; every name in it leads to one of this module's own harmless things."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)  # noqa: SLF001

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as in pickle
        super().__init__(*args, **kwargs)
        self._weights: dict[int, tuple[object, int]] = {}

    def find_class(self, module: str, name: str, /) -> Any:  # noqa: ANN401 - as in pickle
        if module == "torch" and name.endswith("Storage"):
            return name
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return self._describe_tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return self._unwrap_parameter
        # Handing out classes does no harm: what a pickle may do to one lacks its `self` and fails.
        return _InertDict if (module, name) == ("collections", "OrderedDict") else Inert

    def persistent_load(self, pid: Any) -> Storage:  # noqa: ANN401 - as in pickle
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":  # noqa: PLR2004
            raise pickle.UnpicklingError(f"unknown kind of reference {type(pid).__name__}")
        _, kind, key, _location, n_elements = pid
        return self._weigh(Storage(kind, key, n_elements))

    def _describe_tensor(
        self, storage: object, offset: object, shape: object, stride: object, *_: object
    ) -> StoredTensor:
        return self._weigh(StoredTensor(storage, offset, shape, stride))

    def _weigh(self, made: Tuple) -> Tuple:
        """Refuse a tuple that stands for too many values: hashing it would never end."""
        weight = 1 + sum(
            self._weights[id(item)][1] if id(item) in self._weights else 1 for item in made
        )
        if weight > MAX_VALUES:
            raise pickle.UnpicklingError("tuples that refer to each other without end")
        self._weights[id(made)] = made, weight  # kept, so that nothing else gets its id
        return made

    def _refuse(self) -> None:
        # Python allocates as much as these few bytes say, before it looks for it.
        raise pickle.UnpicklingError("a byte array, which no checkpoint has")

    def _unwrap_parameter(self, tensor: object, *_: object) -> object:
        return tensor


def _load_and_weigh(code: int) -> Callable[[Any], None]:
    load: Callable[[Any], None] = _InertUnpickler.dispatch[code]

    def load_tuple(self: Any) -> None:  # noqa: ANN401 - as in pickle
        load(self)
        self._weigh(self.stack[-1])

    return load_tuple


for _code in pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3:
    _InertUnpickler.dispatch[_code] = _load_and_weigh(_code)
_InertUnpickler.dispatch[pickle.BYTEARRAY8[0]] = _InertUnpickler._refuse  # noqa: SLF001


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
            return _InertUnpickler(stream, encoding="utf-8").load()
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


def is_bounded(value: object) -> bool:
    """Say whether what a pickle holds can be spelt out: few values, flat, and no huge numbers."""
    left = [MAX_VALUES]

    def fits(one: object, depth: int) -> bool:
        left[0] -= 1
        if left[0] < 0 or depth > MAX_NESTING:
            return False
        if isinstance(one, dict):
            return all(fits(item, depth + 1) for pair in one.items() for item in pair)
        if isinstance(one, list | tuple | set | frozenset):
            return all(fits(item, depth + 1) for item in one)
        return not isinstance(one, int) or one.bit_length() <= _MAX_BITS

    return fits(value, 0)


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
