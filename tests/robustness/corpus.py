"""What strangers' files hold: nasty values, damaged bytes, and the laws that every case obeys.

A case passes when the code under test returns or raises a `UserError` whose text can be shown,
within bounded CPU time and memory, without writing outside its folder, and without running anything
that stands in the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from neurostorm_bids.errors import UserError
from tests.robustness.driver import count

LONG = int(os.environ.get("NEUROSTORM_FUZZ_CASES", "0"))
"""Cases over all targets; 0 for the short form."""

MAX_EXTRA_BYTES = 3 * 2**30
"""Address space that one case may add."""

MAX_CPU_S = 30.0

EXECUTING = (
    *("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn"),
    *("subprocess.Popen", "socket.connect", "pickle.find_class", "webbrowser.open"),
)
WRITING = {"os.remove": 0, "os.rmdir": 0, "os.mkdir": 0, "os.chmod": 0, "os.truncate": 0}
MOVING = {"os.rename", "os.link", "os.symlink"}


class Hang(BaseException):
    """More CPU time than any case needs."""


class _Watch:
    """Sees, through the interpreter's audit events, what a case writes and runs."""

    folder: str | None = None
    seen: list[str] = []  # noqa: RUF012 - one of a kind

    def __call__(self, event, arguments):
        if self.folder is None:
            return
        if event in EXECUTING:
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._check(event, path)
        elif event in WRITING:
            self._check(event, arguments[WRITING[event]])
        elif event in MOVING:
            self._check(event, arguments[0])
            self._check(event, arguments[1])

    def _check(self, event, path):
        if not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.fsdecode(path)
        where = os.path.realpath(path)
        inside = where == self.folder or where.startswith(self.folder + os.sep)
        if not inside and "__pycache__" not in path and path != os.devnull:
            self.seen.append(f"{event} {path}")


_watch = _Watch()
sys.addaudithook(_watch)


def cases(share, *, short):
    """Settings of a target: `short` cases, or its share (0 to 1) of the long form."""
    return settings(
        max_examples=max(1, round(LONG * share)) if LONG else short,
        derandomize=True,
        database=None,
        deadline=None,
        # A failing case is told as it is: shrinking takes many times longer than finding.
        phases=(Phase.explicit, Phase.generate) if LONG else tuple(Phase),
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def obeying(name, *, may_execute=()):
    """Run a case in a folder of its own; an expected mistake is a good end, all else is none."""
    count(f"damaged or odd: {name}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        _watch.seen = []
        with _bounded():
            try:
                yield folder, _watching(folder)
            except UserError as err:
                check_text(str(err))
            finally:
                _watch.folder = None
        seen = [one for one in _watch.seen if not one.startswith(tuple(may_execute))]
        assert not seen, seen


def _watching(folder):
    """Return what begins to watch: after the case's own files were written."""

    def begin():
        _watch.folder = str(folder)

    return begin


def check_text(text):
    """Check that a text can be printed and written, and is none of the interpreter's."""
    text.encode("utf-8")
    assert "Traceback (most recent call last)" not in text
    assert "unexpected" not in text or "This is a defect" not in text
    assert len(text) < 100_000


@contextlib.contextmanager
def _bounded():
    """Bound the address space and the CPU time of a case."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)

    def end(*_):
        raise Hang

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S)
    limit = pages * resource.getpagesize() + MAX_EXTRA_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


ODD_TEXTS = (
    *("", " ", "n/a", "N/A", "nan", "NaN", "inf", "-inf", "1e999", "-1", "0", "1,5", "1e-320"),
    *("\N{MINUS SIGN}1", "\u0663", "00", "0x10", "1_000", "1 000", "9" * 5000, "#REF!", "#NAME?"),
    *(
        "1-Jan",
        "=1+1",
        "TRUE",
        "null",
        "../../x",
        "/etc/passwd",
        "a" * 300,
        "\x00",
        "\x07",
        "\x1b[2J",
    ),
    *(
        "\ud800",
        "\u202e",
        "\ufeff",
        "\N{PILE OF POO}",
        "\n",
        "\t",
        '"',
        "'",
        "<script>",
        "%s%n",
        "{0}",
    ),
)
ODD_NUMBERS = (
    *(0, -1, 1, 2, 2**31, 2**63, -(2**63), 2**64, 10**400, -(10**400), True, False),
    *(
        0.0,
        -0.0,
        1e308,
        -1e308,
        5e-324,
        0.1,
        float("nan"),
        float("inf"),
        float("-inf"),
        800.0,
        2000,
    ),
)

odd_texts = st.sampled_from(ODD_TEXTS) | st.text(max_size=12)
odd_numbers = st.sampled_from(ODD_NUMBERS) | st.integers() | st.floats()
odd_leaves = st.none() | odd_numbers | odd_texts
odd_values = st.recursive(
    odd_leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(odd_texts, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def damage(draw, content: bytes):  # noqa: PLR0911 - a return for each kind
    """Damage bytes: cut, flip, overwrite, insert, repeat; or leave them."""
    kind = draw(st.sampled_from(["cut", "flip", "overwrite", "insert", "repeat", "drop", "whole"]))
    at = draw(st.integers(0, max(len(content) - 1, 0)))
    if kind == "whole" or not content:
        return content
    if kind == "cut":
        return content[:at]
    if kind == "flip":
        changed = bytearray(content)
        for _ in range(draw(st.integers(1, 4))):
            changed[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(changed)
    junk = draw(st.binary(max_size=16))
    if kind == "overwrite":
        return content[:at] + junk + content[at + len(junk) :]
    if kind == "insert":
        return content[:at] + junk + content[at:]
    end = draw(st.integers(at, min(len(content), at + 64)))
    if kind == "repeat":
        return content[:end] + content[at:]
    return content[:at] + content[end:]


@st.composite
def changed(draw, values, *, extra=()):
    """Change some entries of a mapping, at any depth, to odd values; drop or add some."""
    values = dict(values)
    for _ in range(draw(st.integers(0, 3))):
        keys = [*values, *extra]
        key = draw(st.sampled_from(keys) | odd_texts) if keys else draw(odd_texts)
        what = draw(st.sampled_from(["set", "set", "inside", "drop"]))
        if what == "drop":
            values.pop(key, None)
        elif what == "inside" and isinstance(values.get(key), dict):
            values[key] = draw(changed(values[key]))
        elif what == "inside" and isinstance(values.get(key), list) and values[key]:
            items = list(values[key])
            items[draw(st.integers(0, len(items) - 1))] = draw(odd_values)
            values[key] = items
        else:
            values[key] = draw(odd_values)
    return values


def write_json_text(values) -> str:
    """Write JSON with what Python writes beyond the standard: NaN, Infinity, lone surrogates."""
    return json.dumps(values)


@st.composite
def json_bytes(draw, values, *, extra=()):
    """Return the bytes of a JSON object like `values`, changed, spelt oddly, or damaged."""
    text = write_json_text(draw(changed(values, extra=extra)))
    kind = draw(
        st.sampled_from(["plain"] * 6 + ["deep", "twice", "bom", "utf-16", "latin", "damaged"])
    )
    if kind == "deep":
        depth = draw(st.sampled_from([50, 900, 5_000, 200_000]))
        opening, closing = draw(st.sampled_from([("[", "]"), ('{"a":', "}")]))
        inner = opening * depth + "0" + closing * depth
        return f'{{"a": {inner}, {text[1:]}'.encode() if len(text) > 2 else inner.encode()
    if kind == "twice" and len(text) > 2:
        return f"{text[:-1]}, {text[1:]}".encode()
    if kind == "bom":
        return b"\xef\xbb\xbf" + text.encode()
    if kind == "utf-16":
        return text.encode("utf-16")
    if kind == "latin":
        return text.encode() + "é".encode("latin-1")
    return draw(damage(text.encode())) if kind == "damaged" else text.encode()


@st.composite
def tsv_bytes(draw, rows):
    """Return the bytes of a table like `rows` (lists of text), ragged, spelt oddly or damaged."""
    rows = [list(row) for row in rows]
    for _ in range(draw(st.integers(0, 3))):
        row = rows[draw(st.integers(0, len(rows) - 1))]
        what = draw(st.sampled_from(["cell", "cell", "cell", "short", "long", "again"]))
        if what == "cell" and row:
            row[draw(st.integers(0, len(row) - 1))] = draw(odd_texts)
        elif what == "short":
            row[-1:] = []
        elif what == "long":
            row.append(draw(odd_texts))
        else:
            rows.append(list(row))
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n"]))
    tab = draw(st.sampled_from(["\t"] * 6 + [",", ";", " "]))
    text = end.join(tab.join(row) for row in rows) + draw(st.sampled_from(["", end]))
    encoding = draw(st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "latin-1"]))
    content = text.encode(encoding, errors="replace")
    kind = draw(st.sampled_from(["plain"] * 6 + ["empty", "huge", "damaged"]))
    if kind == "empty":
        return b""
    if kind == "huge":
        return content + b"x" * 200_000
    return draw(damage(content)) if kind == "damaged" else content
