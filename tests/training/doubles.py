"""How can two trainings be compared word for word? In float64: no word drawn hangs on the order of a sum."""

from contextlib import contextmanager
from unittest import mock

from prunecap_lib.training import run
from prunecap_lib.training.build import initial_captioner


def in_double(captioner):
    """This captioner in float64, which also takes pictures as they are read, in float32."""
    captioner.encoder.register_forward_pre_hook(lambda module, arguments: (arguments[0].double(), *arguments[1:]))
    return captioner.double()


@contextmanager
def trained_in_double():
    """Runs that begin here compute in float64. Runs that go on from a checkpoint do not."""
    with mock.patch.object(run, "initial_captioner", lambda *arguments: in_double(initial_captioner(*arguments))):
        yield
