"""neurostorm-bids: the NeuroSTORM foundation model as a BIDS App.

The names below are the Python interface; they are imported when first used, because torch takes
longer to import than ``neurostorm --help`` may take to answer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neurostorm_bids.estimator import NeurostormEmbedder
    from neurostorm_bids.predict import predict_run
    from neurostorm_bids.pretrained import load_model

__version__ = "0.1.0"
__all__ = ["NeurostormEmbedder", "__version__", "load_model", "predict_run"]

_HOME_OF = {
    "NeurostormEmbedder": "neurostorm_bids.estimator",
    "load_model": "neurostorm_bids.pretrained",
    "predict_run": "neurostorm_bids.predict",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562 leaves the type open
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
