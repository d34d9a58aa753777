"""What notebooks show: the text says what the tensor is, the picture has its colours, nothing is
longer than 20 kB, names cannot break out of the text; a real notebook runs."""

import base64
import html.parser
import re
import time
import zlib

import numpy as np
import pytest

import minigrad as mg
from minigrad.study import notebook

MAXIMUM = 20_000


class Reader(html.parser.HTMLParser):
    """Checks that tags are closed, and collects the text, the tags and their attributes."""

    EMPTY = {"img", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return "".join(self.words)

    @property
    def pictures(self):
        return [attributes for tag, attributes in self.tags if tag == "img"]


def shown(thing):
    text = thing._repr_html_()
    if isinstance(thing, mg.Tensor):
        assert len(text.encode()) <= MAXIMUM
    read = Reader(text)
    assert {tag for tag, _ in read.tags} <= {
        *("div", "b", "span", "pre", "img", "table", "thead", "tbody", "tr", "th", "td")
    }
    for _, attributes in read.tags:
        assert attributes.keys() <= {"style", "src", "alt"}  # no onclick
    return read


def pixels(picture):
    """The palette's numbers in a picture: decoded by hand, every check sum compared."""
    start, data = picture["src"].split(",", 1)
    assert start == "data:image/png;base64" and picture["alt"].startswith("Heat map of the ")
    file = base64.b64decode(data, validate=True)
    assert file[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(file):
        length = int.from_bytes(file[at : at + 4], "big")
        kind, body = file[at + 4 : at + 8], file[at + 8 : at + 8 + length]
        check = int.from_bytes(file[at + 8 + length : at + 12 + length], "big")
        assert zlib.crc32(kind + body) == check
        chunks[kind] = body
        at += 12 + length
    columns, rows = (int.from_bytes(chunks[b"IHDR"][k : k + 4], "big") for k in (0, 4))
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(rows, columns + 1)
    assert (lines[:, 0] == 0).all() and lines.max() < len(chunks[b"PLTE"]) / 3
    return lines[:, 1:]


NON_FINITE = 2 * notebook.LEVELS + 1


# ---------------------------------------------------------------- what is said


def test_shape_dtype_and_origin():
    x = mg.ones((2, 3), requires_grad=True)
    assert "Tensor (2, 3) float32, a leaf that requires grad" in shown(x).text
    assert "Tensor (2, 3) float64, no graph" in shown(mg.ones((2, 3), dtype="float64")).text
    y = mg.tanh(x)
    assert "made by tanh" in shown(y).text and "freed" not in shown(y).text
    y.sum().backward()
    assert "made by tanh; backward has freed its graph" in shown(y).text


def test_one_output_of_several():
    x = mg.ones(4, requires_grad=True)
    first, second = mg.split(x, 2)
    name = first.grad_fn.name
    assert f"made by {name}" in shown(first).text
    (first * second).sum().backward()
    assert "freed" in shown(first).text


def test_nothing_is_recorded_and_nothing_changes():
    x = mg.Tensor([1.0, 2.0], requires_grad=True)
    y = x * x
    shown(y)
    y.sum().backward()
    assert x.grad.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_statistics(dtype):
    values = np.random.default_rng(0).standard_normal((70, 31)).astype(dtype)
    values[:7] = 0
    found = notebook.statistics(values)
    assert (found.low, found.high) == (values.min(), values.max())
    assert found.looked_at == values.size and found.zeros == pytest.approx(0.1)
    assert found.mean == pytest.approx(values.mean(dtype=float), abs=1e-12)
    assert found.std == pytest.approx(values.std(dtype=float), rel=1e-12)
    assert "10.0% zeros" in shown(mg.Tensor(values)).text


@pytest.mark.parametrize("size", [1e308, 1e-308, 5e-324])
def test_statistics_neither_overflow_nor_underflow(size):
    with np.errstate(all="raise"):
        found = notebook.statistics(np.array([-size, size, size, -size]))
        assert found.mean == 0 and found.std in (size, 0)
        shown(mg.Tensor(np.array([-size, size])))
        shown(mg.Tensor(np.full(3, np.finfo("float64").max)))


def test_non_finite_values_are_counted_and_coloured():
    values = np.zeros((3, 4), np.float32)
    values[0, 1], values[1, 2], values[2, 3], values[2, 0] = np.nan, np.inf, -np.inf, 5
    read = shown(mg.Tensor(values))
    assert "3 non-finite: 1 NaN, 1 inf, 1 -inf" in read.text and "0 to 5" in read.text
    cells = pixels(read.pictures[0])
    assert ((cells == NON_FINITE) == ~np.isfinite(values)).all()
    assert cells[2, 0] == 2 * notebook.LEVELS and cells[0, 0] == notebook.LEVELS
    assert "nothing is finite" in shown(mg.Tensor(np.full(3, np.nan))).text


def test_a_lone_nan_shows_in_a_large_picture():
    values = np.ones((1000, 700), np.float32)
    values[333, 401] = np.nan
    cells = pixels(shown(mg.Tensor(values)).pictures[0])
    assert cells.shape == (128, 128) and (cells == NON_FINITE).sum() == 1
    assert cells[333 * 128 // 1000, 401 * 128 // 700] == NON_FINITE


def test_a_lone_nan_among_ten_million_is_counted():
    values = np.ones(10**7, np.float32)
    values[1_234_567] = np.nan
    read = shown(mg.Tensor(values, copy=False))
    assert "1 non-finite: 1 NaN; the picture may miss some" in read.text
    assert re.search(r"mean, std and zeros: of [\d,]+ of the 10,000,000 elements", read.text)


def test_the_gradient_stands_beside():
    x = mg.Tensor([[1.0, -2.0]], requires_grad=True)
    assert len(shown(x).pictures) == 1
    (x * x).sum().backward()
    read = shown(x)
    data, grad = read.pictures
    assert "the data" in data["alt"] and "the grad" in grad["alt"] and "-4 to 2" in read.text
    assert pixels(grad).tolist() == [[notebook.LEVELS + 8, 0]]  # 2 / 4 of 15 levels: 7.5


# ---------------------------------------------------------------- tensors of all kinds


@pytest.mark.parametrize(
    "shape, picture",
    [
        ((1,), None),
        ((), None),
        ((0,), None),
        ((3, 0, 2), None),
        ((7,), (1, 7)),
        ((1000,), (1, 128)),
        ((5, 1), (5, 1)),
        ((200, 3), (128, 3)),
        ((2, 3, 4), (6, 4)),
        ((2,) * 14, (128, 2)),
        ((1,) * 20 + (3,), (1, 3)),
    ],
)
def test_shapes(shape, picture):
    read = shown(mg.Tensor(np.arange(np.prod(shape, dtype=int), dtype=float).reshape(shape)))
    assert str(shape)[:70] in read.text
    assert [pixels(p).shape for p in read.pictures] == ([] if picture is None else [picture])


def test_shapes_in_words():
    assert "3.5" in shown(mg.Tensor(3.5)).text
    assert "no elements" in shown(mg.zeros((0, 3))).text
    assert "no elements" in shown(mg.Tensor.__new__(mg.Tensor)).text  # its __init__ has not run
    assert "axes 0 to 1 down, axis 2 to the right" in shown(mg.zeros((2, 3, 4))).text
    assert "128 × 3 of 200 × 3 shown" in shown(mg.zeros((200, 3))).text
    assert "[1., 2.]" in shown(mg.Tensor([1.0, 2.0])).text


def test_views():
    values = np.random.default_rng(0).standard_normal((300, 200))
    for view in (values.T, values[::-1, ::3], values[:, :1]):
        same = shown(mg.Tensor(np.ascontiguousarray(view)))
        assert shown(mg.Tensor(view, copy=False)).text == same.text


def test_an_expanded_view_is_not_walked_through():
    x = mg.Tensor([[1.0], [np.nan]])
    wide = mg.broadcast_to(x, (2, 10**12))
    text = shown(wide).text
    assert "1,000,000,000,000 non-finite" in text and "1 to 1, mean 1, std 0" in text


@pytest.mark.parametrize("with_grad", [False, True])
def test_never_longer_than_20_kb(with_grad):
    """Noise that fills all colours evenly cannot be compressed."""
    rng = np.random.default_rng(0)
    for shape in [(500, 500), (128, 128), (2,) * 18]:
        values = rng.uniform(-1, 1, shape)
        values[rng.random(shape) < 1 / 32] = np.inf
        x = mg.Tensor(values, requires_grad=True)
        if with_grad:
            x.grad = mg.Tensor(values[::-1].copy())
        shown(x)


@pytest.mark.slow
def test_cost_of_ten_million_elements():
    x = mg.Tensor(np.random.default_rng(0).standard_normal((2500, 4000)))
    times = []
    for _ in range(5):
        before = time.process_time()
        x._repr_html_()
        times.append(time.process_time() - before)
    assert min(times) < 0.05


# ---------------------------------------------------------------- names


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=y>',
    "a&b\n</div>",
    "\ud800",
    "x" * 9999,
]


@pytest.mark.parametrize("name", HOSTILE, ids=["script", "quote", "closing", "surrogate", "long"])
def test_hostile_names(name):
    class Net(mg.nn.Module):
        def __init__(self):
            setattr(self, name, mg.nn.Parameter([[1.0, 2.0]]))
            self.inner = mg.nn.Linear(1, 1)
            self.inner.options = lambda: name

    read = shown(Net())
    assert read.text.encode() and (len(name) > 99 or name == "\ud800" or name in read.text)
    if name == "\ud800":
        return  # Python refuses it as the name of a class
    kind = type(name, (mg.Tensor,), {})
    assert shown(kind([1.0, 2.0])).text.startswith(name[:50])

    class Op(mg.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, dy):
            return dy * 2

    Op.__name__ = name
    shown(Op.apply(mg.ones(2, requires_grad=True)))


def test_hostile_formats_of_numpy():
    with np.printoptions(formatter={"float": lambda value: "<&>" * 1000}):
        shown(mg.ones(50))


# ---------------------------------------------------------------- modules


class Net(mg.nn.Module):
    def __init__(self):
        self.layer = mg.nn.LSTM(3, 4)
        self.out = mg.nn.Linear(4, 1)

    def forward(self, x):
        return self.out(self.layer(x)[0])


def rows(read):
    """The cells of the table, line by line."""
    cells, row = [], None
    for tag, _ in read.tags:
        if tag == "tr":
            row = []
            cells.append(row)
        elif tag in ("td", "th"):
            row.append(tag)
    return cells


def test_module():
    net = Net()
    read = shown(net)
    total = sum(p.size for p in net.parameters())
    assert f"Net, {total:,} parameters" in read.text
    for name, _ in net.named_parameters():
        assert name in read.text
    assert "Linear(4, 1)" in read.text and read.text.count("none") == 5
    table = rows(read)
    assert len(table) == 1 + len(net._walk()) - 1 and {len(row) for row in table} == {6}


def test_norms_of_a_module():
    layer = mg.nn.Linear(2, 1)
    with mg.no_grad():
        layer.weight[...] = [[3.0], [4.0]]
    layer.weight.grad = mg.Tensor([[np.nan], [12.0]])
    text = shown(layer).text
    assert "Linear(2, 1), 3 parameters" in text
    assert "weightParameter(2, 1)2512 (1 non-finite)" in text  # 2 elements, |w| = 5, |grad| = 12


def test_a_module_of_nothing_and_one_of_many():
    class Empty(mg.nn.Module):
        pass

    assert shown(Empty()).text == "Empty(), 0 parameters"
    many = mg.nn.Module()
    many.layers = [mg.nn.Linear(1, 1) for _ in range(200)]
    read = shown(many)
    assert len(rows(read)) == 1 + notebook.ROWS and "and 500 rows more" in read.text


# ---------------------------------------------------------------- in Jupyter


@pytest.mark.slow
def test_a_notebook(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    nbformat = pytest.importorskip("nbformat")
    cells = [
        "import minigrad as mg\nlayer = mg.nn.Linear(3, 2)",
        "(layer(mg.ones((4, 3))) ** 2).sum().backward()",
        "layer",
        "layer.weight",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=60, kernel_name="python3", resources=resources).execute()
    module, weight = (cell.outputs[0].data["text/html"] for cell in book.cells[2:])
    assert "Linear(3, 2), 8 parameters" in Reader(module).text
    assert len(Reader(weight).pictures) == 2
    nbformat.validate(book)
