"""Deterministic weights / inputs used by the golden fixtures. Pure numpy, no official code; may be shipped.

Every tensor gets its own legacy RandomState(seed ^ crc32(key)), so order does not matter, and every value
is rounded to float16 (hence exactly representable in float16/float32/float64).
"""

import hashlib
import zlib

import numpy as np


def _rs(seed, key):
    return np.random.RandomState((zlib.crc32(key.encode()) ^ (seed * 2654435761)) & 0xFFFFFFFF)


def tensor(key, shape, seed):
    """Value for one state_dict entry (key as in the official checkpoint, without the 'model.' prefix)."""
    rs, shape = _rs(seed, key), tuple(shape)
    g = rs.standard_normal(shape)
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "A_log":
        v = np.log(np.arange(1, shape[1] + 1))[None, :] + 0.3 * g
    elif leaf == "D":
        v = 1.0 + 0.3 * g
    elif key.endswith("dt_proj.bias"):  # softplus^-1 of dt log-uniform in [1e-2, 0.5]
        dt = np.exp(rs.random_sample(shape) * (np.log(0.5) - np.log(1e-2)) + np.log(1e-2))
        v = dt + np.log(-np.expm1(-dt))
    elif key.endswith("dt_proj.weight"):
        v = (2 * rs.random_sample(shape) - 1) * shape[1] ** -0.5
    elif "conv1d.weight" in key:
        v = 0.5 * g
    elif leaf in ("pos_embed", "time_embed", "cls_token"):
        v = 0.3 * g
    elif leaf in ("mask_token", "window_mask_token", "atlas_mask_token", "prompt"):
        v = 0.5 * g
    elif leaf == "running_var":
        v = 0.5 + rs.random_sample(shape)
    elif leaf == "running_mean":
        v = 0.3 * g
    elif leaf == "weight" and len(shape) == 1:  # LayerNorm / BatchNorm scale
        v = 1.0 + 0.25 * g
    elif leaf in ("bias", "in_proj_bias"):
        v = 0.2 * g
    elif len(shape) >= 2:  # Linear
        v = 1.2 * g / np.sqrt(np.prod(shape[1:]))
    else:
        raise KeyError(key)
    return v.astype(np.float16)


def weights(shapes, seed):
    """shapes: {key: shape} -> {key: float16 array}; non-float entries (num_batches_tracked, atlas_map) are left out."""
    return {
        k: tensor(k, s, seed)
        for k, s in shapes.items()
        if not k.endswith(("num_batches_tracked", "atlas_map"))
    }


def digest(w):
    h = hashlib.sha256()
    for k in sorted(w):
        h.update(k.encode())
        h.update(np.ascontiguousarray(w[k], dtype="<f2").tobytes())
    return h.hexdigest()


def clip(shape, seed):
    """Input clip as int8; model input is value / 32 in float32 (exact), roughly N(0, 1)."""
    rs = np.random.RandomState(seed)
    return np.clip(np.rint(rs.standard_normal(tuple(shape)) * 32), -127, 127).astype(np.int8)


IN_SCALE = np.float32(1.0 / 32.0)
