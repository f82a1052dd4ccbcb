"""Synthetic 4D volumes for the preprocessing fixtures: integer arithmetic only, so bit-identical on every platform.
Pure numpy (+ nibabel for write()); no official code; may be shipped."""

import numpy as np


def _hash(i):
    with np.errstate(over="ignore"):
        i = i.astype(np.uint32)
        i ^= i >> np.uint32(16)
        i *= np.uint32(0x7FEB352D)
        i ^= i >> np.uint32(15)
        i *= np.uint32(0x846CA68B)
        i ^= i >> np.uint32(16)
    return i


def frame(shape, t, seed):
    X, Y, Z = shape
    x = np.arange(X, dtype=np.int64)[:, None, None]
    y = np.arange(Y, dtype=np.int64)[None, :, None]
    z = np.arange(Z, dtype=np.int64)[None, None, :]
    # squared normalised radius, times 10000 (ellipsoid with semi-axes 42 % of the field of view)
    r = (
        ((2 * x - X + 1) * 100) ** 2 * 10000 // (84 * X) ** 2
        + ((2 * y - Y + 1) * 100) ** 2 * 10000 // (84 * Y) ** 2
        + ((2 * z - Z + 1) * 100) ** 2 * 10000 // (84 * Z) ** 2
    )
    base = 900 - r // 12 + (x * 7 + y * 3 - z * 5) % 160 + ((x // 5 + y // 7 + z // 6) % 3) * 120
    idx = ((x * Y + y) * Z + z).astype(np.uint32)
    h = _hash(idx + np.uint32((t * 2654435761 + seed * 40503) & 0xFFFFFFFF))
    noise = ((h & 255) + ((h >> 8) & 255) + ((h >> 16) & 255) + (h >> 24)).astype(
        np.int64
    ) - 510  # sd ~148
    wave = np.abs((t * 37 + (x + 2 * y + 3 * z)) % 200 - 100) - 50
    v = base + noise // 2 + wave
    return np.where(r < 10000, v, 0).astype(np.int16)


def volume(shape, nt, seed):
    return np.stack([frame(shape, t, seed) for t in range(nt)], axis=-1)


def brain_mask(shape):
    X, Y, Z = shape
    x, y, z = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    r = (
        (2 * x - X + 1) ** 2 * 10000 // (7 * X // 10) ** 2
        + (2 * y - Y + 1) ** 2 * 10000 // (7 * Y // 10) ** 2
        + (2 * z - Z + 1) ** 2 * 10000 // (7 * Z // 10) ** 2
    )
    return (r < 10000).astype(np.uint8)


def write(path, shape, nt, zooms, tr, seed, dtype="int16", slope=1.0):
    """Write the volume as NIfTI-1. dtype 'int16' (on-disk integers, value = slope * stored) or 'float32' (value = int / 8)."""
    import nibabel as nib

    v = volume(shape, nt, seed)
    img = nib.Nifti1Image(
        v if dtype == "int16" else (v.astype(np.float32) / 8), np.diag(list(zooms) + [1.0])
    )
    img.header.set_zooms(tuple(zooms) + (tr,))
    img.header.set_xyzt_units("mm", "sec")
    if dtype == "int16" and slope != 1.0:
        img.header.set_slope_inter(slope, 0)
        # nibabel would rescale on save: write raw bytes instead
        import gzip

        with gzip.open(path, "wb", 1) if path.endswith(".gz") else open(path, "wb") as f:
            h = img.header.copy()
            h["vox_offset"] = 352
            h["scl_slope"] = slope
            h["scl_inter"] = 0
            h["magic"] = b"n+1"
            f.write(h.binaryblock)
            f.write(b"\0" * 4)
            f.write(v.tobytes(order="F"))
    else:
        nib.save(img, path)
