"""What every test of the package starts from."""

import pytest
import tranship
from conftest_daemon import daemon  # noqa: F401


@pytest.fixture
def identity():
    return tranship.Identity("tiny", "r1", "u8", "nhd", layers=2, block_tokens=4)


@pytest.fixture
def cache(daemon, identity):  # noqa: F811
    with tranship.connect(daemon.address, identity=identity) as cache:
        yield cache
