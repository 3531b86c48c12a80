"""Is every picture captioned from wherever it comes, or named, and is what is printed safe to read?"""

import io
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from PIL import Image

from prunecap_lib import Captioner, CaptionerConfig, Vocabulary, cli
from prunecap_lib.cli import sources


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    words = Vocabulary.build(["a red dog runs over the green hill", "two cats sleep"])
    folder = tmp_path_factory.mktemp("caption") / "model"
    Captioner(CaptionerConfig(d_model=16, layers=1, heads=2, ffn=16, max_length=24), words).save(folder)
    return folder


@pytest.fixture
def run(model, capsys):
    def call(*arguments, status=0):
        found = 0
        try:
            cli.main(["caption", *map(str, arguments), "--checkpoint", str(model)])
        except SystemExit as stop:
            found = stop.code
        out, err = capsys.readouterr()
        assert found == status and "Traceback" not in err, err
        return out, err
    return call


def picture(path, colour="red", size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, "PNG")
    return path


class Web(BaseHTTPRequestHandler):
    """A small server that also does what servers should not."""

    def do_GET(self):
        data = io.BytesIO()
        Image.new("RGB", (40, 30), "blue").save(data, "PNG")
        data = data.getvalue()
        where = {"/missing.png": 404}.get(self.path, 302 if self.path == "/turn.png" else 200)
        self.send_response(where)
        if where == 302:
            self.send_header("Location", "file:///etc/hostname")
        length = {"/cut.png": len(data) + 9, "/huge.png": 10**9}.get(self.path, len(data))
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(b"<html>" + bytes(len(data) - 6) if self.path == "/page.png" else data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def web():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.slow
def test_addresses(run, web, tmp_path):
    out, _ = run(f"{web}/a.png?size=2", f"{web}/ü b.png", "--method", "greedy", "--figure", tmp_path / "figures")
    assert [line.split("\t")[0] for line in out.splitlines()] == [f"{web}/a.png?size=2", f"{web}/ü b.png"]
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"a.png", "ü b.png"}


@pytest.mark.parametrize("name, says", [("missing.png", "answers 404"), ("cut.png", "try again"),
                                        ("huge.png", "more than 50,000,000 bytes"), ("turn.png", "answers 302"),
                                        ("page.png", "not a picture in a format")])
def test_an_address_that_gives_no_picture_is_named(run, web, tmp_path, name, says):
    out, err = run(f"{web}/{name}", picture(tmp_path / "a.png"), status=2)
    assert out.count("\n") == 1 and err.count("\n") == 1 and f"{web}/{name}" in err and says in err


def test_a_server_that_is_not_there_or_slow(run, monkeypatch, web):
    assert "cannot be fetched" in run("http://127.0.0.1:9/a.png", status=2)[1]
    assert "cannot be fetched" in run("http://", status=2)[1]
    monkeypatch.setattr(sources, "MOST_SECONDS", -1)
    assert "has not come within" in run(f"{web}/a.png", status=2)[1]


def test_standard_input(run, tmp_path, monkeypatch):
    for data, status in ((picture(tmp_path / "a.png").read_bytes(), 0), (b"", 2), (b"no picture", 2)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        out, err = run("-", status=status)
        assert out.startswith("-\t") == (not status) and ("standard input" in err) == bool(status)


def test_folders(run, tmp_path):
    for name in ("b.png", "in/a.JPG", "in/.hidden.png", "in/deeper/c.webp", "in/text.txt"):
        picture(tmp_path / "all" / name)
    assert run(tmp_path / "all")[0].count("\n") == 1
    out, _ = run(tmp_path / "all", "--recursive")
    names = [os.path.relpath(line.split("\t")[0], tmp_path / "all") for line in out.splitlines()]
    assert names == ["b.png", "in/a.JPG", "in/deeper/c.webp"]


def test_the_best_captions_and_how_sure_they_are(run, tmp_path):
    at = picture(tmp_path / "a.png")
    rows = [json.loads(line) for line in run(at, "--n", 3, "--json")[0].splitlines()]
    assert [row["rank"] for row in rows] == [1, 2, 3] and len({tuple(row["ids"]) for row in rows}) == 3
    assert rows[0]["text"] == json.loads(run(at, "--json")[0])["text"]
    assert all(row["mean_log_prob"] == pytest.approx(row["log_prob"] / len(row["ids"]), abs=1e-3) for row in rows)
    assert rows[0].keys() >= {"image", "checkpoint", "kept", "grid", "prune_ratio", "scorer"}
    name, text, sure = run(at, "--confidence")[0].rstrip("\n").split("\t")
    assert 0 < float(sure) < 1
    assert "--n is 6" in run(at, "--n", 6, status=2)[1]
    assert "--n is 2" in run(at, "--n", 2, "--method", "greedy", status=2)[1]


def test_sixteen_bits(run, tmp_path):
    assert run(picture(tmp_path / "a.png"), "--dtype", "bf16", "--device", "cpu")[0].count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text elsewhere")
def test_names_that_are_no_text_or_forge_lines(run, tmp_path):
    for name in (b"a.png", b"caf\xe9.png", b"new\nline\t\x1b[2J.png", b"z.png"):
        os.rename(picture(tmp_path / "x.png"), os.path.join(os.fsencode(tmp_path), name))
    out, err = run(tmp_path)
    assert out.count("\n") == 4 and err == "" and "caf\\udce9.png" in out and "new\\nline\\t\\x1b[2J.png\t" in out
    assert len([json.loads(line) for line in run(tmp_path, "--json")[0].splitlines()]) == 4


def test_a_terminal_of_few_letters(model, tmp_path, monkeypatch):
    at = picture(tmp_path / "ö.png")
    few = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", few)
    cli.main(["caption", str(at), "--checkpoint", str(model)])
    assert rb"\xf6.png" in few.buffer.getvalue()


@pytest.mark.parametrize("error, status", [(BrokenPipeError(32, "Broken pipe"), 141), (OSError(28, "No space"), 2)])
def test_nobody_reads_or_the_disk_is_full(monkeypatch, capsys, error, status):
    class Closed(io.StringIO):
        def write(self, text):
            raise error
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    err = capsys.readouterr().err
    assert stop.value.code == status and err.count("\n") == (status == 2)


def test_ctrl_c_ends_an_import_at_once_and_lets_all_else_tidy_up(monkeypatch):
    class Left(BaseException):
        pass

    def leave(status):
        raise Left(status)

    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(KeyboardInterrupt):
        cli._interrupted(2, sys._getframe())
    frame = {}
    exec(compile("import sys; here = sys._getframe()", "<frozen importlib._bootstrap>", "exec"), frame)
    with pytest.raises(Left, match="130"):
        cli._interrupted(2, frame["here"])
