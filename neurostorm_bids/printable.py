"""Text that strangers wrote, made safe to show on a terminal or in a log."""

from __future__ import annotations


def make_printable(text: str, *, keep: str = "") -> str:
    r"""Return a text in which nothing steers the terminal.

    What cannot be printed, line ends too, becomes an escape such as ``\x1b``.

    Parameters
    ----------
    keep : characters that stay as they are, such as line ends.
    """
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)
