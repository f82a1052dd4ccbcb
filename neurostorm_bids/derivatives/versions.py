"""Versions of the software that the numbers rest on."""

from __future__ import annotations

import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("torch", "numpy", "scipy", "nibabel", "nilearn", "nitransforms", "captum")


@lru_cache(maxsize=1)
def list_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute, by name."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
