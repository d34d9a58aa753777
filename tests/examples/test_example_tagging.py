"""examples/tagging.py as a user runs it: its task cannot be done from left to right, and is done
both ways; it reads CoNLL-U and two columns, and refuses bad files in one line."""

import os
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from running import Script

SCRIPT = Script("tagging", timeout=240)
run, run_alone = SCRIPT.run, SCRIPT.run_alone
FILES = Path(__file__).parents[1] / "files"
NETWORKS = ["one direction", "mean", "sum", "concat"]
CONLLU = """\
# sent_id = 1
# text = Vámonos al mar
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tVamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
2.1\tya\tya\tADV\t_\t_\t_\t_\t_\t_
3-4\tal\t_\t_\t_\t_\t_\t_\t_\t_
3\ta\ta\tADP\t_\t_\t5\tcase\t_\t_
4\tel\tel\tDET\t_\t_\t5\tdet\t_\t_
5\tmar\tmar\tNOUN\t_\t_\t1\tobl\t_\t_

# sent_id = 2
1\t#\t#\tSYM\t_\t_\t0\troot\t_\t_
2\t1 000\t1000\tNUM\t_\t_\t1\tnummod\t_\t_

"""


@pytest.fixture(scope="module")
def tagging():
    return SCRIPT.load()


def accuracies(out, of="accuracy"):
    """Of each network, in the order in which they are printed."""
    found = dict(re.findall(rf"^(.{{14}}) .*{of} ([\d.]+)%", out, re.MULTILINE))
    return {name.strip(): float(value) / 100 for name, value in found.items()}


def columns(path, sentences):
    path.write_text(
        "\n\n".join("\n".join(f"{word} {tag}" for word, tag in s) for s in sentences),
        encoding="utf-8",
    )
    return path


def test_the_mark_is_independent_of_all_before_it(tagging):
    """What the bound of a third rests on: counted over openings, lengths of the clause and the mark
    before."""
    seen = Counter()
    for sentence in tagging.make_sentences(4000, np.random.default_rng(0)):
        before, opening, length = "", "", 0
        for word, tag in sentence:
            if tag == "opening":
                opening, length = word, 0
            elif tag == "mark":
                seen[before, opening, length, word] += 1
                before = word
            else:
                assert word == "la" and tag[0] == opening
                length += 1
    for before in ("", *".?!"):
        for opening in "([":
            for length in range(1, 7):
                counts = [seen[before, opening, length, mark] for mark in ".?!"]
                assert abs(np.array(counts) - sum(counts) / 3).max() < 5 * np.sqrt(
                    sum(counts) * 2 / 9
                ), (before, opening, length)


def test_the_tag_of_a_word_is_the_bracket_and_the_mark_of_its_clause(tagging):
    for sentence in tagging.make_sentences(50, np.random.default_rng(1)):
        text = "".join(word[0] for word, _ in sentence)
        assert re.fullmatch(r"([(\[]l{1,6}[.?!]){1,4}", text)
        for k, (word, tag) in enumerate(sentence):
            if word == "la":
                assert tag == re.findall(r"[(\[]", text[:k])[-1] + re.search(r"[.?!]", text[k:])[0]


@pytest.mark.slow
def test_one_direction_stays_below_the_bound_and_both_solve_it(tmp_path):
    pytest.importorskip("matplotlib")
    done = run("--epochs", 2, folder=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    words, la = accuracies(done.stdout), accuracies(done.stdout, "of the la")
    assert list(words) == list(la) == NETWORKS
    assert (
        0.25 < la["one direction"] < 1 / 3 + 0.06
    )  # the bound and five standard deviations of 2490 marks drawn at random
    assert min(la[n] for n in NETWORKS[1:]) > 0.99 and min(words[n] for n in NETWORKS[1:]) > 0.99
    sizes = [int(n) for n in re.findall(r"(\d+) parameters", done.stdout)]
    assert len(sizes) == 4 and max(sizes) == sizes[0]
    report = re.findall(
        r"^(\S+) +([\d.]+)% +([\d.]+)% +([\d.]+)% +([\d.]+)% +(\d+)$", done.stdout, re.MULTILINE
    )
    assert [row[0] for row in report] == ["(!", "(.", "(?", "[!", "[.", "[?", "mark", "opening"]
    assert sum(int(row[-1]) for row in report) == int(
        re.search(r"with (\d+) words", done.stdout)[1]
    )
    for _, precision, recall, f1, _, _ in report:
        p, r = float(precision), float(recall)
        assert abs(2 * p * r / max(p + r, 1e-9) - float(f1)) < 0.02
    assert (tmp_path / "tagging.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_counts_right(tagging, monkeypatch, capsys, tmp_path):
    """Against numbers made by hand: truth A A A B B C, tags A A B B A A."""
    file = columns(
        tmp_path / "t.txt",
        [[("x", "A"), ("x", "A"), ("x", "A"), ("x", "B")], [("x", "B"), ("x", "C")]],
    )
    monkeypatch.setattr(tagging, "train_and_tag", lambda *_: (np.array([0, 0, 1, 1, 0, 0]), 7))
    monkeypatch.setattr(tagging, "draw", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["tagging.py", "--train", str(file), "--test", str(file)])
    tagging.main()
    out = capsys.readouterr().out
    assert (
        "2 sentences to learn from; 2 with 6 words to test; 3 tags" in out
        and "concat         accuracy 50.00%" in out
    )
    table = out[out.index("concat         accuracy") :].splitlines()
    rows = [words for line in table if len(words := line.split()) == 6 and words[1].endswith("%")]
    assert rows == [
        ["A", "50.00%", "66.67%", "57.14%", "57.14%", "3"],
        ["B", "50.00%", "50.00%", "50.00%", "50.00%", "2"],
        ["C", "0.00%", "0.00%", "0.00%", "0.00%", "1"],
    ]


@pytest.mark.slow
def test_files_in_two_columns(tagging, tmp_path):
    rng = np.random.default_rng(5)
    files = [
        columns(tmp_path / name, tagging.make_sentences(n, rng))
        for name, n in (("train.txt", 400), ("test.txt", 50))
    ]
    done = run_alone(
        "--train",
        files[0],
        "--test",
        files[1],
        "--epochs",
        3,
        folder=tmp_path,
        without=("matplotlib",),
    )
    assert (
        done.returncode == 0
        and "no picture without matplotlib: pip install matplotlib" in done.stdout
    ), done.stderr
    words = accuracies(done.stdout)
    assert words["concat"] > 0.95 > 0.7 > words["one direction"] and "of the la" not in done.stdout


@pytest.mark.parametrize(
    "change", [lambda t: t, lambda t: t.replace("\n", "\r\n"), lambda t: "\ufeff" + t, str.rstrip]
)
def test_reading_conllu(tagging, tmp_path, change):
    file = tmp_path / "a.conllu"
    file.write_bytes(change(CONLLU).encode("utf-8"))
    assert tagging.read_sentences(file) == [
        [("Vamos", "VERB"), ("nos", "PRON"), ("a", "ADP"), ("el", "DET"), ("mar", "NOUN")],
        [("#", "SYM"), ("1 000", "NUM")],
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "ranges.conllu",
            [
                [("Vamos", "VERB"), ("nos", "PRON"), ("a", "ADP"), ("el", "DET"), ("mar", "NOUN")],
                [("#", "SYM"), ("10\u00a0000", "NUM"), ("10 000", "NUM"), ("🎈\u2028", "SYM")],
            ],
        ),
        (
            "two_columns.txt",
            [
                [("New York", "PROPN"), ("10\u00a0000", "NUM"), ("#", "SYM")],
                [("is", "AUX"), ("🎈\u2028", "SYM")],
            ],
        ),
        ("spaces.txt", [[("the", "DET"), ("10\u00a0000", "NUM")], [("#", "SYM")]]),
    ],
)
def test_files(tagging, name, expected):
    """A byte order mark, CRLF, an empty last column, 1-2 and 2.1, spaces and U+2028 in words,
    comments, no last line's end."""
    assert tagging.read_sentences(FILES / name) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_tag.conllu", "line 3: the word 'b' has no tag: column 4 is _"),
        ("no_tag.txt", "line 2: the word 'cat' has no tag"),
    ],
)
def test_files_that_are_refused(tagging, name, message, capsys):
    with pytest.raises(SystemExit):
        tagging.read_sentences(FILES / name)
    assert capsys.readouterr().err == f"tagging: {FILES / name}, {message}\n"


@pytest.mark.parametrize(
    "content",
    ["the\tDET", "the DET\n" * 2, "a" * 10**6 + "\tX\n"],
    ids=["a word", "a tag", "a long line"],
)
def test_tiny_files_are_learnt(tmp_path, content):
    (tmp_path / "t.txt").write_text(content)
    done = run("--train", "t.txt", "--test", "t.txt", "--epochs", 1, "--plot", "", folder=tmp_path)
    assert (
        done.returncode == 0 and done.stderr == "" and "1 sentences to learn from" in done.stdout
    ), done.stderr


def test_reading_two_columns(tagging, tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("\n\nthe\tDET\ncat  NOUN\n\n \n# SYM\n", encoding="utf-8")
    assert tagging.read_sentences(file) == [[("the", "DET"), ("cat", "NOUN")], [("#", "SYM")]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the DET\ncat\n", "line 2: expected 2 columns, got 1"),
        ("the\tDET\ncat\t\n", "line 2: the word 'cat' has no tag"),
        ("the\tDET\n\tNOUN\n", "line 2: the tag 'NOUN' has no word"),
        ("the\tDET\tx\n", "line 1: expected 2 columns, got 3"),
        ("# newdoc\n", "holds no sentences"),
        (CONLLU.replace("VERB", "_"), "line 4: the word 'Vamos' has no tag: column 4 is _"),
        (
            CONLLU.replace("2.1", "x"),
            "line 6: the first column must be a number as 3, 3-4 or 5.1, got 'x'",
        ),
        (CONLLU.replace("\t", " "), "line 3: expected 2 columns, got 10"),
        ("the DET\n\nthe big cat NOUN\n", "line 3: expected 2 columns, got 4"),
        (CONLLU + "1\tone\ttwo\n", "line 16: expected 10 columns, got 3"),
        (CONLLU + "one NUM\n", "line 16: expected 10 columns, got 1"),
        ("", "holds no sentences"),
        ("\n \n\n", "holds no sentences"),
        (CONLLU[:35], "holds no sentences"),
    ],
)
def test_bad_files(tagging, tmp_path, capsys, text, message):
    file = tmp_path / "bad.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        tagging.read_sentences(file)
    errors = capsys.readouterr().err
    assert left.value.code == 2 and errors.count("\n") == 1
    assert errors.startswith("tagging: ") and str(file) in errors and message in errors, errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--train", "none.txt", "--test", "none.txt"),
            "cannot read none.txt: [Errno 2] No such file or directory",
        ),
        (
            ("--train", "bytes.txt", "--test", "bytes.txt"),
            "cannot read bytes.txt: it is UTF-16 text",
        ),
        (("--train", "w.txt"), "--train and --test come together"),
        (("--epochs", 0), "argument --epochs: must be at least 1, got 0"),
        (("--seed", -1), "argument --seed: must be at least 0, got -1"),
        (
            ("--train", "w.txt", "--test", "w.txt", "--epochs", 1, "--plot", "none/p.png"),
            "--plot: cannot write none/p.png",
        ),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
    (tmp_path / "w.txt").write_text("the DET\ncat NOUN\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr, (
        done.stderr
    )
    assert done.stderr.startswith("tagging: ")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX signals here")
def test_interrupting(tmp_path):
    with SCRIPT.start("--epochs", 10**6, folder=tmp_path) as child:
        assert "sentences" in child.stdout.readline()
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate(timeout=60)
    assert child.returncode == 130 and out.endswith("interrupted\n") and errors == "", errors


def test_help(tmp_path):
    done = run("--help", folder=tmp_path)
    assert (
        done.returncode == 0
        and "python examples/tagging.py" in done.stdout
        and "--train" in done.stdout
    )
