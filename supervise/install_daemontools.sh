#!/usr/bin/env bash
# Sees to it that daemontools' programs can be found: in PATH or in the directory named.
# Root installs Debian's package; anybody else has it unpacked into the directory.
#   usage: install_daemontools.sh DIRECTORY
set -euo pipefail

directory=$(cd "$1" && pwd)
PATH="$directory:$PATH"

present() {
    local program
    for program in multilog setlock supervise svc svok svscan svstat; do
        command -v "$program" >/dev/null || return 1
    done
}

# Debian's package, with the system's package lists or, where those are missing or old, fresh ones.
fetch() {
    apt-get download daemontools ||
        { apt-get "${own_lists[@]}" update && apt-get "${own_lists[@]}" download daemontools; }
}

unpack() {
    work=$(mktemp -d)  # not local: the trap runs after this function
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
    own_lists=(-o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache")
    (cd "$work" && fetch && dpkg -x daemontools_*.deb .) >"$work/log" 2>&1 ||
        { tail -n 5 "$work/log" >&2; return 1; }
    cp "$work"/usr/bin/* "$directory/"
}

install_package() {
    local install=(apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 daemontools)
    export DEBIAN_FRONTEND=noninteractive
    "${install[@]}" >/dev/null 2>&1 || { apt-get update -qq && "${install[@]}"; } >/dev/null
}

present && exit
if command -v apt-get >/dev/null; then
    echo 'sactory: installing daemontools' >&2
    { [ "$(id -u)" = 0 ] && install_package && present && exit; } || true
    unpack && present && exit
    echo "sactory: daemontools can't be installed from here:" \
        "run 'apt-get install daemontools' as root, then this again" >&2
else
    echo "sactory: daemontools is missing: install your distribution's package of that name" \
        "(it must put supervise, svscan, svc and multilog on PATH), then run this again" >&2
fi
exit 1
