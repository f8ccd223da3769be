"""A gate with an echo server behind it in Reverb's place: fake_gate.py RUN_DIR BINDINGS FLAGS...

Flags: `insecure`, `refused` (unshare fails as where it is forbidden), `nobody` (drops root first),
`silent` (nothing serves behind it), `strangers` (few of them, for a short time).
Prints one line of JSON when it serves, and ends with its standard input.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import sys
import threading

import gin

from replay_server import gate, isolation
from sactory import cli
from sactory.run_dir import RunDir

NOBODY = 65534


def become_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: as after an ordinary login


def refuse(_flags: int) -> None:
    raise PermissionError(1, "Operation not permitted")


def echo(connection: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):  # the test's end need not say goodbye
        connection.sendall(b"hello ")  # as Reverb, the server speaks first
        while data := connection.recv(4096):
            connection.sendall(data)


def serve(port: int) -> None:
    server = socket.create_server(
        ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=True
    )
    while True:
        connection, _ = server.accept()
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


def main(argv: list[str]) -> int:
    run_dir, bindings, *flags = argv
    if "nobody" in flags:
        become_nobody()
    if "refused" in flags:
        isolation._unshare = refuse
    if "strangers" in flags:
        gate._STRANGERS, gate._HANDSHAKE_SECONDS = 2, 0.5
    gin.parse_config(bindings)
    opened = gate.open_gate(RunDir(run_dir), "insecure" in flags)
    if "silent" not in flags:
        threading.Thread(target=serve, args=(opened.reverb_port,), daemon=True).start()
    opened.start()
    print(json.dumps({"access": opened.access, "port": opened.reverb_port}), flush=True)
    sys.stdin.read()
    opened.close()
    return 0


if __name__ == "__main__":
    try:
        cli.end_process(main(sys.argv[1:]))
    except cli.UserError as e:
        cli.print_error(str(e))
        cli.end_process(cli.USER_ERROR)
