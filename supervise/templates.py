"""The two shell scripts of a service: its program and its log."""

from __future__ import annotations

# setlock is not needed: the service process holds a lock that its program inherits.
RUN = """\
#!/bin/sh
# Service `{name}` of a Sactory run. Written by `sactory run` at each start: changes are lost.
exec 2>&1
umask 077
# gRPC obeys these even for 127.0.0.1.
unset http_proxy https_proxy grpc_proxy
{exports}
exec {python} -m supervise.service {command}
"""

LOG_RUN = """\
#!/bin/sh
# Read it with: tai64nlocal <log/main/current
umask 077
exec {multilog} ./main
"""
