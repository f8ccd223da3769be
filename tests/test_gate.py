"""Who gets into the replay server. Reverb's place is taken by an echo server that speaks first."""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import portpicker
import pytest

from replay_server.gate import choose_port
from sactory import supervision, tls
from sactory.errors import UserError
from sactory.run_dir import RunDir, read_json, write_json
from tests.marks import isolated_only, root_only

pytestmark = pytest.mark.timeout(60)
FAKE = str(Path(__file__).with_name("fake_gate.py"))
ROOT = Path(__file__).parent.parent
NETWORK = "replay_server.listen = 'network'"
NOBODY = 65534


@pytest.fixture
def run_dir(tmp_path):
    run_dir = RunDir(tmp_path / "run")
    write_json(run_dir.provenance, {"run_id": "0123456789abcdef"})
    tls.make_certificates(run_dir.tls)
    return run_dir


@pytest.fixture
def open_gate():
    processes = []

    def start(run_dir, bindings="", *flags):
        process = subprocess.Popen(
            [sys.executable, FAKE, str(run_dir), bindings, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            _, said = process.communicate()
            return process, said
        return process, json.loads(line)

    yield start
    for process in processes:
        process.communicate("" if process.poll() is None else None, timeout=20)


def greeting(connection, message=b"you"):
    """What the server says first and answers; b'' if it ends the connection."""
    connection.settimeout(20)
    with contextlib.suppress(OSError), connection:
        connection.sendall(message)
        said = b""
        while len(said) < 9:
            data = connection.recv(100)
            if not data:
                break
            said += data
        return said
    return b""


def through(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return greeting(connection)


def reachable(port):
    hosts = ["127.0.0.1", "::1", socket.gethostbyname(socket.gethostname())]
    found = []
    for host in hosts:
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), timeout=5).close()
            found.append(host)
    return found


def listening_ports(pid):
    """TCP ports that anybody listens on in the process's own network."""
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return {int(line[1].split(":")[-1], 16) for line in lines if line[3] == "0A"}


@isolated_only
def test_by_default_only_a_private_socket_leads_in(run_dir, open_gate):
    before = listening_ports(os.getpid())
    process, gate = open_gate(run_dir)
    address = read_json(run_dir.address)
    assert (address["access"], address["port"]) == ("isolated", None)
    assert address["host"] == socket.gethostname()
    assert through(address["socket"]) == b"hello you"
    directory = Path(address["socket"]).parent
    assert directory.stat().st_mode & 0o777 == 0o700
    assert listening_ports(process.pid) == {gate["port"]}  # in a network of its own
    assert gate["port"] in before or reachable(gate["port"]) == []
    process.communicate("")
    assert not directory.exists()


@isolated_only
def test_reverb_gives_up_dead_connections_within_seconds():
    ask = (
        "import os; from replay_server import isolation; isolation.enter(); "
        "path = '/proc/sys/net/ipv4/tcp_retries2'; "
        "print(open(path).read() if os.access(path, os.W_OK) else 'read-only')"
    )
    told = subprocess.check_output([sys.executable, "-c", ask], text=True, cwd=ROOT).strip()
    assert told in ("5", "read-only")


@isolated_only
@root_only
def test_another_user_of_the_host_gets_no_connection(run_dir, open_gate):
    open_gate(run_dir)
    path = read_json(run_dir.address)["socket"]
    attempt = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534); "
        "socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    )
    command = [sys.executable, "-c", attempt, path]
    tried = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert tried.returncode == 1 and "PermissionError" in tried.stderr
    assert through(path) == b"hello you"


@isolated_only
@root_only
def test_a_user_without_rights_is_isolated_too(run_dir, open_gate, tmp_path):
    for path in (tmp_path, *list(tmp_path.parents)[:2]):  # pytest keeps them to its own user
        path.chmod(0o711)
    for path in (run_dir.root, *run_dir.root.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    process, gate = open_gate(run_dir, "", "nobody")
    assert gate["access"] == "isolated"
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}" in status
    assert Path(f"/proc/{process.pid}/uid_map").read_text().split() == [str(NOBODY)] * 2 + ["1"]
    address = read_json(run_dir.address)
    assert Path(address["socket"]).stat().st_uid == NOBODY
    assert run_dir.address.stat().st_uid == NOBODY
    assert through(address["socket"]) == b"hello you"


def test_where_isolation_is_refused_access_is_open_and_one_line_says_so(run_dir, open_gate):
    process, gate = open_gate(run_dir, "", "refused")
    address = read_json(run_dir.address)
    assert (gate["access"], address["access"]) == ("open", "open")
    assert address["port"] == gate["port"]
    assert "127.0.0.1" in reachable(gate["port"])
    assert through(address["socket"]) == b"hello you"
    _, said = process.communicate("")
    (line,) = said.splitlines()
    assert f"access is open (Operation not permitted): port {gate['port']} takes" in line


def test_where_isolation_is_refused_the_network_is_not_served_unless_asked_to(run_dir, open_gate):
    process, said = open_gate(run_dir, NETWORK, "refused")
    assert process.returncode == supervision.USER_ERROR
    assert "replay_server.listen = 'network' needs network namespaces" in said
    assert "(Operation not permitted)" in said and said.count("\n") == 1
    _, gate = open_gate(run_dir, NETWORK, "refused", "insecure")
    assert gate["access"] == "open"


def test_insecure_listen_opens_a_port_and_warns(run_dir, open_gate):
    port = portpicker.pick_unused_port()
    process, gate = open_gate(run_dir, f"replay_server.port = {port}", "insecure")
    assert gate == {"access": "open", "port": port}
    assert "127.0.0.1" in reachable(port)
    _, said = process.communicate("")
    assert "as --insecure_listen asks" in said


def context(directory, certificate=True):
    made = tls.client_context(directory)
    if not certificate:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.load_verify_locations(directory / "ca.pem")
    return made


def encrypted(port, made):
    raw = socket.create_connection(("127.0.0.1", port), timeout=20)
    try:
        return greeting(made.wrap_socket(raw, server_hostname=tls.SERVER_NAME))
    except ssl.SSLError as e:
        return e.reason or "refused"


@isolated_only
def test_across_hosts_only_the_runs_own_certificate_gets_in(run_dir, open_gate, tmp_path):
    _, gate = open_gate(run_dir, NETWORK)
    address = read_json(run_dir.address)
    port = address["port"]
    assert address["access"] == gate["access"] == "tls"
    assert encrypted(port, context(run_dir.tls)) == b"hello you"
    assert encrypted(port, context(run_dir.tls, certificate=False)) in (b"", "refused")
    tls.make_certificates(tmp_path / "other")
    assert encrypted(port, context(tmp_path / "other")) == "CERTIFICATE_VERIFY_FAILED"
    stranger = context(tmp_path / "other")  # who would trust any server
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    assert encrypted(port, stranger) == b""
    swapped = context(run_dir.tls)  # the server's own certificate makes no client
    swapped.load_cert_chain(run_dir.tls / "server.pem")
    assert encrypted(port, swapped) == b""
    plain = socket.create_connection(("127.0.0.1", port))
    assert b"hello" not in greeting(plain, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert through(address["socket"]) == b"hello you"


def test_certificates_are_private_and_the_authority_keeps_no_key(run_dir):
    assert run_dir.tls.stat().st_mode & 0o777 == 0o700
    files = sorted(run_dir.tls.iterdir())
    assert [p.name for p in files] == ["ca.pem", "client.pem", "server.pem"]
    assert all(p.stat().st_mode & 0o777 == 0o600 for p in files)
    assert [b"PRIVATE KEY" in p.read_bytes() for p in files] == [False, True, True]


@pytest.mark.parametrize("bindings", ["", NETWORK])
@isolated_only
def test_a_second_server_on_a_port_is_refused(run_dir, open_gate, tmp_path, bindings):
    port = portpicker.pick_unused_port()
    bindings += f"\nreplay_server.port = {port}"
    open_gate(run_dir, bindings)
    other = RunDir(tmp_path / "other")
    write_json(other.provenance, {"run_id": "another"})
    tls.make_certificates(other.tls)
    process, said = open_gate(other, bindings)
    assert process.returncode == supervision.USER_ERROR
    assert f"replay_server.port = {port} is in use on this host" in said
    assert reachable(port) == [] or NETWORK in bindings  # kept, but not listened on


@isolated_only
def test_a_killed_servers_socket_goes_when_another_starts(run_dir, open_gate):
    directories = []
    for _ in range(2):
        process, _ = open_gate(run_dir)
        directories.append(Path(read_json(run_dir.address)["socket"]).parent)
        os.utime(directories[-1], (0, 0))
        if len(directories) == 1:
            process.kill()
            process.wait()
    open_gate(run_dir)
    assert [directory.exists() for directory in directories] == [False, True]


def test_a_port_in_use_is_refused_by_name(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"replay_server.port = {port} is in use"):
            choose_port(port, RunDir(tmp_path))


def test_a_restarted_server_takes_its_old_port_again_if_it_is_free(tmp_path):
    run_dir, port = RunDir(tmp_path), portpicker.pick_unused_port()
    write_json(run_dir.address, {"host": "x", "port": port})
    assert choose_port(0, run_dir) == port
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", port))
        taken.listen()
        assert choose_port(0, run_dir) != port
