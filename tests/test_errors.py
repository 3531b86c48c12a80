"""Can anything that was named by others be printed on one line, and do no harm to a terminal?"""

import pytest

from prunecap_lib.errors import printable


@pytest.mark.parametrize("text, shown", [
    ("a dog's bone.jpg", "a dog's bone.jpg"),
    ("two\nlines\r\tand\x1b[2Jnothing\x00\x7f\x9b", r"two\nlines\r\tand\x1b[2Jnothing\x00\x7f\x9b"),
    ("gpj.\u202egnp", r"gpj.\u202egnp"),  # shown backwards by a terminal
    ("one\u2028two\u2029", r"one\u2028two\u2029"),
    ("not utf-8 \udcff", r"not utf-8 \udcff"),
    ("собака كلب 狗 👩\u200d🚀 é", "собака كلب 狗 👩\u200d🚀 é"),
])
def test_what_is_printed_stays_on_its_line_and_is_legible(text, shown):
    assert printable(text) == shown
    printable(text).encode("utf-8")
    assert len(printable(text).splitlines()) == 1
