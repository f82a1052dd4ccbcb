"""Reading small files of other people with care: not fetched, not a file, too long, not JSON."""

from __future__ import annotations

import json
import shlex
import stat
from typing import TYPE_CHECKING, Any

from neurostorm_bids.errors import DataError, MissingFileError, ReadError, UserError
from neurostorm_bids.inputs.names import natural_key

if TYPE_CHECKING:
    from pathlib import Path

MAX_JSON_BYTES = 10_000_000

_POINTER = b"/annex/objects/"
_MAX_POINTER_BYTES = 32 * 1024


def list_names(folder: Path) -> list[str]:
    """List the names in a folder in natural order, touching none of the files; [] if it is a file.

    Raises
    ------
    MissingFileError : there is no such folder, or only a link to one that was not fetched.
    ReadError : the file system refuses.
    """
    try:
        return sorted((entry.name for entry in folder.iterdir()), key=natural_key)
    except NotADirectoryError:
        return []
    except FileNotFoundError as err:
        raise _missing(folder, None) from err
    except OSError as err:
        raise _refused(folder, err) from err


def check_readable(path: Path, *, dataset_root: Path | None = None) -> int:
    """Return the size in bytes of a file that is really there.

    Raises
    ------
    MissingFileError : there is no such file, or only a link whose content was not fetched.
    DataError : it is a folder, a pipe or a device.
    ReadError : the file system refuses.
    """
    try:
        status = path.stat()
    except FileNotFoundError as err:
        raise _missing(path, dataset_root) from err
    except OSError as err:
        raise _refused(path, err) from err
    if not stat.S_ISREG(status.st_mode):
        msg = f"Expected a file, found a folder or a device: {path}. Remove or rename it."
        raise DataError(msg)
    if 0 < status.st_size <= _MAX_POINTER_BYTES and _is_pointer(path):
        raise _missing(path, dataset_root)
    return status.st_size


def _is_pointer(path: Path) -> bool:
    """Tell whether a file only names its content, as git-annex writes it into unlocked trees."""
    try:
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError as err:
        raise _refused(path, err) from err


def _refused(path: Path, err: OSError) -> ReadError:
    return ReadError(f"{path} cannot be read: {err.strerror}. Check its permissions and its disk.")


def _missing(path: Path, dataset_root: Path | None) -> MissingFileError:
    if not path.is_symlink() and not path.exists():
        return MissingFileError(f"Expected {path}, found nothing there.")
    root = shlex.quote(str(dataset_root or path.parent))
    return MissingFileError(
        f"{path} was not fetched: it only points to content that is not on this machine. "
        f"Fetch it with: datalad get -d {root} {shlex.quote(str(path))}"
    )


def read_json_object(
    path: Path,
    *,
    dataset_root: Path | None = None,
    error: type[UserError] = DataError,
) -> dict[str, Any]:
    """Read a JSON file that must hold one object.

    Parameters
    ----------
    path : UTF-8, with or without byte order mark, at most 10 MB.
    dataset_root : for the command that fetches a file which is only a link.
    error : what to raise when the file is there and is not such an object.

    Raises
    ------
    MissingFileError, ReadError : the file is not there, or cannot be read.
    """
    size = check_readable(path, dataset_root=dataset_root)
    if size > MAX_JSON_BYTES:
        msg = f"Expected a JSON file of at most {MAX_JSON_BYTES} bytes, found {size}: {path}."
        raise error(msg)
    try:
        content: object = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as err:
        raise _refused(path, err) from err
    except (ValueError, RecursionError) as err:
        msg = f"Expected JSON, found something else in {path}: {err}. Correct the file."
        raise error(msg) from err
    if not isinstance(content, dict):
        msg = f"Expected a JSON object, found {type(content).__name__} in {path}."
        raise error(msg)
    return content
