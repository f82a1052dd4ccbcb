"""What setup.cfg cannot say: the compiled kernels, which the package can do without.

They are a plain C library that knows no Python, so it gets a plain name, and a wheel that carries
it serves every Python 3 of its platform. Where it cannot be compiled, the build goes on without it.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = Path("neurostorm_bids", "kernels", "src")
FLAGS = ["-O3", "-std=gnu11", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math"]
"""Never -march=native, the library chooses when it runs; never -ffast-math, it breaks rounding."""


class BuildLibrary(build_ext):
    """Names the library without the Python that happens to build it."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return the file of a module's name."""
        return str(Path(*fullname.split(".")).with_suffix(".so"))


class NameWheel(bdist_wheel):
    """Says that the wheel needs a platform, but no certain Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return Python, its interface and the platform."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            "neurostorm_bids.kernels._kernels",
            sources=[str(SOURCES / "kernels.c")],
            depends=[str(path) for path in sorted(SOURCES.glob("*.h"))],
            extra_compile_args=[*FLAGS, "-g0", "-Wno-psabi"],
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": NameWheel},
)
