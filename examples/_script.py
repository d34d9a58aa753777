"""What the example scripts share: error messages, options, reading text files, pictures, and how a
script ends.

A script makes one Script, `script = Script("forecast", __doc__)`, and hands its main function to
`script.run`.
"""

import argparse
import errno
import math
import os
import re
import sys
import warnings

LARGEST_TEXT = 2**30  # bytes of the largest text file that is read
LARGEST_NUMBER = 1e30  # far below float32's largest number, and its square far below float64's
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg")
NOT_TEXT = {  # the first bytes of files that are taken for UTF-8 text by mistake
    b"\xff\xfe\0\0": "UTF-32 text: convert it to UTF-8 (iconv -f utf-32 -t utf-8)",
    b"\0\0\xfe\xff": "UTF-32 text: convert it to UTF-8 (iconv -f utf-32 -t utf-8)",
    b"\xff\xfe": "UTF-16 text: convert it to UTF-8 (iconv -f utf-16 -t utf-8)",
    b"\xfe\xff": "UTF-16 text: convert it to UTF-8 (iconv -f utf-16 -t utf-8)",
    b"\x1f\x8b": "compressed by gzip: unpack it first (gunzip)",
    b"BZh": "compressed by bzip2: unpack it first (bunzip2)",
    b"\xfd7zXZ": "compressed by xz: unpack it first (unxz)",
    b"PK\x03\x04": "a zip archive, as .xlsx files are: unpack it, or save the table as CSV",
}


def shown(text: str, limit: int = 40) -> str:
    """A piece of a file for a message: quoted, without control characters, and short."""
    return repr(text if len(text) <= limit else text[:limit] + "...")


def number(text: str) -> float:
    """The number in a field of a file. A field that is empty, or holds no number or one that is too
    large, is a ValueError."""
    text = text.strip(" \t")
    if not text or text.lower() in ("?", "na", "n/a", "#n/a", "nan", "null", "none", "-", "."):
        raise ValueError(f"a missing value ({shown(text)}): fill the gaps first")
    if not NUMBER.fullmatch(text):
        raise ValueError(f"{shown(text)} is not a number")
    value = float(text)
    if not abs(value) < LARGEST_NUMBER:
        raise ValueError(f"{shown(text)} is too large: a number must be below {LARGEST_NUMBER:g}")
    return value


# ---------------------------------------------------------------- types of options, for argparse


def whole(low: int, below: int = 10**10):
    """A whole number of at least `low` and below `below`."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"invalid int value: {text!r}") from None
        if not low <= value < below:
            limit = f"at least {low}" if value < low else f"below {below}"
            raise argparse.ArgumentTypeError(f"must be {limit}, got {text}")
        return value

    return convert


def real(low: float, below: float = math.inf):
    """A finite number of at least `low` and below `below`."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"invalid float value: {text!r}") from None
        if not low <= value < below:
            raise argparse.ArgumentTypeError(
                f"must be at least {low:g} and below {below:g}, got {text}"
            )
        return value

    return convert


# A learning rate or a clipping threshold of 0 would train nothing. The smallest value allowed still
# gives steps that float32 can represent.
positive = real(1e-8)
size = whole(1, 10**6)  # of layers, batches, sequences
count = whole(1)  # of steps, epochs
seed_number = whole(0, 2**128)


def place(path: str) -> str:
    """A file that can be written."""
    folder = os.path.dirname(path) or "."
    reason = None
    if not path or "\0" in path or os.path.isdir(path):
        reason = os.strerror(errno.EISDIR)
    elif not os.path.isdir(folder):
        reason = os.strerror(errno.ENOENT)
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
        reason = os.strerror(errno.EACCES)
    if reason:
        raise argparse.ArgumentTypeError(f"cannot write {path}: {reason}")
    return path


def picture(path: str) -> str:
    """A picture that can be written; "" for none."""
    if path and not path.lower().endswith(PICTURES):
        raise argparse.ArgumentTypeError(
            f"cannot write {path}: its name must end in one of {' '.join(PICTURES)}"
        )
    return path and place(path)


# ---------------------------------------------------------------- a script


class Script:
    """An example script: its name, with which each error message begins, and its docstring, which
    `--help` prints."""

    def __init__(self, name: str, doc: str) -> None:
        self.name = name
        self.doc = doc

    def fail(self, message: str) -> None:
        """Print one line on stderr and exit with status 2."""
        line = "".join(c if c.isprintable() else " " for c in " ".join(message.split()))
        print(f"{self.name}: {line}", file=sys.stderr)
        sys.exit(2)

    def parser(self) -> argparse.ArgumentParser:
        """A parser of options whose help is the docstring, and whose errors are one line."""
        parser = argparse.ArgumentParser(
            description=self.doc, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.error = self.fail
        return parser

    def read_text(self, path) -> str:
        """The text of a UTF-8 file, without a byte order mark, each line ended by "\\n" alone.

        Get its lines by `text.split("\\n")`: str.splitlines would also split at U+2028, U+0085 and
        other characters that stand within lines.
        """
        try:
            with open(path, "rb") as file:
                data = file.read(LARGEST_TEXT + 1)
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            self.fail(f"cannot read {path}: {error}")
        if len(data) > LARGEST_TEXT:
            self.fail(f"cannot read {path}: it is larger than {LARGEST_TEXT:,} bytes")
        for start, what in NOT_TEXT.items():
            if data.startswith(start):
                self.fail(f"cannot read {path}: it is {what}")
        if b"\0" in data:
            line = data.count(b"\n", 0, data.index(b"\0")) + 1
            self.fail(
                f"cannot read {path}, line {line}: it holds a zero byte, so it is not UTF-8 text"
            )
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            # error.start counts from the end of the byte order mark
            mark = 3 if data.startswith(b"\xef\xbb\xbf") else 0
            before = data[: error.start + mark].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            self.fail(
                f"cannot read {path}, line {before.count(10) + 1}, as UTF-8 text: {error}; "
                "convert it (iconv -f latin1 -t utf-8)"
            )
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def draw(self, path: str, drawing, width: float, height: float, dpi: int = 120) -> bool:
        """Save what drawing(figure) draws on a matplotlib Figure at `path`, or nowhere if it is "".
        Return whether the picture was saved."""
        if not path:
            return False
        try:
            from matplotlib.figure import Figure
        except ImportError:
            print("no picture without matplotlib: pip install matplotlib")
            return False
        figure = Figure(figsize=(width, height), layout="constrained")
        with warnings.catch_warnings():
            # A letter that the font lacks is drawn as a box.
            warnings.filterwarnings("ignore", message="Glyph")
            drawing(figure)
            try:
                figure.savefig(path, dpi=dpi)
            except OSError as error:  # no space left
                self.fail(f"cannot write {path}: {error}")
        return True

    def run(self, main) -> None:
        """Run main(). Where the user, the system or the reader of the output ends it, print a line
        instead of a traceback."""
        # The stdout of a notebook has no such method, and can show all characters.
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")
        try:
            main()
            sys.stdout.flush()
        except KeyboardInterrupt:
            print("interrupted")
            sys.exit(130)
        except MemoryError as error:
            self.fail(f"out of memory: {error}")
        except BrokenPipeError:
            # Nobody reads what is printed, as in `... | head`. Python flushes stdout once more at
            # its end; let that go nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)


def literal(text: str) -> str:
    """A name from a file, such that matplotlib draws it letter by letter: $ would begin a
    formula."""
    return text.replace("$", r"\$")
