"""Which Ray a fleet finds: one that was killed leaves its address behind, and nobody waits for it."""

import os
import socket
import subprocess
import sys

import pytest

SAYS = "from parallel_reason.fleet.cluster import describe; print(describe())"


@pytest.fixture
def nobody():
    """An address on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def said(**environment):
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ran = subprocess.run(
        [sys.executable, "-c", SAYS], env=kept | environment, capture_output=True, text=True, check=True, timeout=50
    )
    return ran.stdout.strip()


def test_the_address_of_a_ray_that_is_gone_is_no_cluster(nobody, tmp_path):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(nobody)
    assert said(RAY_TMPDIR=str(tmp_path)) == "no cluster runs here; a fleet starts a Ray of its own"


def test_an_address_that_was_asked_for_and_does_not_answer_is_named(nobody):
    assert said(RAY_ADDRESS=nobody) == f"RAY_ADDRESS={nobody} cannot be reached: nothing listens there"
