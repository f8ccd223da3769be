"""What the replay server keeps for itself: its port, its cores, its descriptors."""

import os
import resource
import socket
import subprocess
import sys
import uuid

import portpicker
import pytest

from sactory import cpus, supervision
from sactory.run_dir import RunDir, read_json, write_json
from tests import test_gate
from tests.test_gate import NETWORK, ROOT, context, encrypted, isolated_only, reachable

pytestmark = pytest.mark.timeout(60)
run_dir, open_gate = test_gate.run_dir, test_gate.open_gate


def test_an_open_port_is_kept_before_reverb_listens_on_it(run_dir, open_gate, tmp_path):
    port = portpicker.pick_unused_port()
    bindings = f"replay_server.port = {port}"
    _, gate = open_gate(run_dir, bindings, "insecure", "silent")
    assert gate == {"access": "open", "port": port} and reachable(port) == []
    other = RunDir(tmp_path / "other")
    write_json(other.provenance, {"run_id": "another"})
    process, said = open_gate(other, bindings, "insecure", "silent")
    assert process.returncode == supervision.USER_ERROR
    assert f"replay_server.port = {port} is in use on this host" in said


def test_the_server_may_have_as_many_descriptors_as_the_system_grants(run_dir, open_gate):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard - 1), hard))
    try:
        process, _ = open_gate(run_dir)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (hard, hard)


@isolated_only
def test_strangers_hold_few_descriptors_and_not_for_long(run_dir, open_gate):
    process, _ = open_gate(run_dir, NETWORK, "strangers")
    port = read_json(run_dir.address)["port"]
    before = len(os.listdir(f"/proc/{process.pid}/fd"))
    silent = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(10)]
    assert len(os.listdir(f"/proc/{process.pid}/fd")) <= before + 2
    assert silent[0].recv(1) == b""  # turned out, well before asyncio's own minute
    assert encrypted(port, context(run_dir.tls)) == b"hello you"
    for connection in silent:
        connection.close()


SERVE = """
import functools, sys, types
from sactory import cli, cpus

def serve(run_dir, stop, heartbeat, gate):
    print(gate.access, *cpus.current().pinned, flush=True)
    sys.stdin.read()
    gate.close()
    return 0

cpus.claim = functools.partial(cpus.claim, namespace=sys.argv[2])
sys.modules["replay_server.server"] = types.SimpleNamespace(serve=serve)
from replay_server import main
cli.end_process(main.main(["--run_dir", sys.argv[1]]))
"""


@isolated_only
def test_everybody_on_the_host_sees_the_cores_of_an_isolated_server(run_dir):
    write_json(run_dir.specs, {})
    run_dir.config.write_text("replay_server.cpus = 1\n")
    namespace = f"sactory-test-{uuid.uuid4().hex}"
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(run_dir), namespace],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert server.stdout is not None
        access, core = server.stdout.readline().split()
        assert access == "isolated"
        assert cpus._lock(f"{namespace}-{core}") is None
    finally:
        server.communicate("", timeout=20)
