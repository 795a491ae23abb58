"""Every row arrives once under faults and kills."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

pytestmark = pytest.mark.waits

for package in ("nats", "duckdb"):
    pytest.importorskip(package, reason=f"{package} is not installed: no message was sent")


LONG = "RH_LONG" in os.environ


@pytest.mark.slow
@pytest.mark.timeout(1000 if LONG else 300)
def test_rows_sent_are_rows_stored_under_faults_and_kills(clean_env: Mapping[str, str]) -> None:
    """20 hosts, some with a wrong clock, messages lost, repeated and reordered; server and hub killed twice each. With
    RH_LONG=1: 1,000 hosts, one of which was offline for a day, and 20 kills each.

    In a process of its own: nats-py leaves the sockets of lost connections to the garbage collector.
    """
    done = subprocess.run([sys.executable, "-m", "tests.fleet", "chaos" if LONG else "small"], capture_output=True, text=True, timeout=900 if LONG else 120,
                          check=False, env=dict(clean_env))
    if "nats-server is not installed" in done.stderr:
        pytest.skip("nats-server is not installed: no message was sent")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["wrong"] == [] and outcome["kills"] == (40 if LONG else 4) and outcome["rows"] > 3000
    assert outcome["faults"]["lost"] > 0 and outcome["faults"]["sent again"] > 0
