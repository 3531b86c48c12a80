"""What several tests of data sets need."""

import pytest
from coco_on_a_server import FILES

import bad_server


@pytest.fixture
def web():
    """A server and what COCO consists of there; ``coco(year)`` for another year."""
    server, coco = bad_server.serve(FILES[2017], 2017)
    yield server, coco
    server.close()
