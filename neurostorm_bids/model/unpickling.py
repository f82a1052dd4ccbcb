"""A pickle, read without running anything that stands in it.

A pickle is a program: it may name any function of any installed module and call it. The one of a
checkpoint is read by an unpickler that resolves no name to real code. Tensors become descriptions
(`StoredTensor`), everything else that is not a plain number, string, tuple, list or dict becomes an
`Inert` stand-in. So files open whose classes are not installed, optimizer states cost no memory,
and there is nothing that a malicious file could call.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Tuple = TypeVar("Tuple", bound=tuple[Any, ...])

MAX_VALUES = 1_000_000
MAX_NESTING = 50
"""Values in what is used of a pickle, counted as often as they are referred to; their nesting.

A pickle may refer to one value any number of times: sixty lists of two, each twice the one before,
take a few hundred bytes and cannot be spelt out in any memory.
"""

_MAX_BITS = 64


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
class InertUnpickler(pickle._Unpickler):  # noqa: SLF001
    """Reads a pickle; every name in it leads to one of this module's own harmless things."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)  # noqa: SLF001

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as in pickle
        super().__init__(*args, **kwargs)
        self._weights: dict[int, tuple[object, int]] = {}

    def find_class(self, module: str, name: str, /) -> Any:  # noqa: ANN401 - as in pickle
        """Return something harmless for a name."""
        if module == "torch" and name.endswith("Storage"):
            return name
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return self._describe_tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return self._unwrap_parameter
        # Handing out classes does no harm: what a pickle may do to one lacks its `self` and fails.
        return _InertDict if (module, name) == ("collections", "OrderedDict") else Inert

    def persistent_load(self, pid: Any) -> Storage:  # noqa: ANN401 - as in pickle
        """Return the place of a tensor's numbers in the archive."""
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
    load: Callable[[Any], None] = InertUnpickler.dispatch[code]

    def load_tuple(self: Any) -> None:  # noqa: ANN401 - as in pickle
        load(self)
        self._weigh(self.stack[-1])

    return load_tuple


for _code in pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3:
    InertUnpickler.dispatch[_code] = _load_and_weigh(_code)
InertUnpickler.dispatch[pickle.BYTEARRAY8[0]] = InertUnpickler._refuse  # noqa: SLF001


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
