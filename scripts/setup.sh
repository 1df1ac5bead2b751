#!/bin/bash
# Installs what `make demo` and `make test` need: Debian packages, .venv with the locked versions, and the
# extension's files into the PostgreSQL server. Run it as often as you like: what is there is left alone.
# It starts no PostgreSQL cluster and touches none that exists.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=.venv
LOCKS=(requirements/runtime.txt requirements/dev.txt requirements/engine-cpu.txt requirements/torch-cpu.txt)
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

say() { printf '[setup] %s\n' "$*"; }

fail() {
    printf '[setup] failed: %s\n' "$*" >&2
    exit 1
}

# Run a command quietly; show the end of what it said only if it fails.
quietly() {
    local log
    log=$(mktemp)
    if "$@" >"$log" 2>&1; then
        rm -f "$log"
    else
        tail -n 25 "$log" >&2
        rm -f "$log"
        return 1
    fi
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "root is needed for: $* (become root, or install sudo)"
    fi
}

# --- Debian packages ------------------------------------------------------------------------------------------

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# The newest PostgreSQL whose server is installed; nothing if there is none.
server_major() {
    local initdb
    for initdb in /usr/lib/postgresql/*/bin/initdb; do
        if [ -x "$initdb" ]; then echo "$initdb" | cut -d/ -f5; fi
    done | sort -n | tail -n 1
}

# The major version that the distribution's metapackage `postgresql` stands for.
offered_major() {
    # No package lists, no answer: not an error yet.
    { apt-cache depends postgresql 2>/dev/null || true; } | sed -n 's/.*Depends: postgresql-\([0-9][0-9]*\)$/\1/p'
}

update_package_lists() {
    say "reading the package lists"
    quietly as_root apt-get update -q || fail "apt-get update"
}

install_packages() {
    command -v apt-get >/dev/null ||
        fail "this script knows Debian and its kin; elsewhere see CONTRIBUTING.md for what to install by hand"
    local major packages missing=() package
    major=$(server_major)
    if [ -z "$major" ]; then
        major=$(offered_major)
        if [ -z "$major" ]; then
            update_package_lists
            major=$(offered_major)
        fi
        [ -n "$major" ] || fail "the distribution offers no package postgresql"
    fi
    # libnuma1 is loaded by vLLM's CPU kernels; gcc and make build the native module.
    packages="postgresql-$major postgresql-plpython3-$major postgresql-server-dev-$major python3-venv libnuma1"
    packages="$packages gcc make libc6-dev"
    for package in $packages; do
        is_installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    # In a fresh image the lists are empty or older than what the mirror still holds.
    apt-cache show "${missing[@]}" >/dev/null 2>&1 || update_package_lists
    say "installing ${missing[*]}"
    without_main_cluster apt_install "${missing[@]}" || {
        update_package_lists
        without_main_cluster apt_install "${missing[@]}" || fail "apt-get install ${missing[*]}"
    }
}

apt_install() {
    quietly as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "$@"
}

# The first server package creates and starts a cluster `main`, unless this file says otherwise.
NO_MAIN_CLUSTER=/etc/postgresql-common/createcluster.d/pg_bridge-setup.conf

remove_no_main_cluster() { as_root rm -f "$NO_MAIN_CLUSTER"; }

without_main_cluster() {
    local outcome=0
    if [ -n "$(server_major)" ]; then
        "$@"
        return
    fi
    trap 'remove_no_main_cluster' EXIT
    as_root mkdir -p "$(dirname "$NO_MAIN_CLUSTER")"
    echo 'create_main_cluster = false' | as_root tee "$NO_MAIN_CLUSTER" >/dev/null
    "$@" || outcome=$?
    remove_no_main_cluster
    trap - EXIT
    return $outcome
}

# --- .venv ----------------------------------------------------------------------------------------------------

# What the environment was filled from: the lock files and our own metadata.
stamp() { cat "${LOCKS[@]}" pyproject.toml | sha256sum | cut -d' ' -f1; }

locked_names() { sed -n 's/==.*//p' "${LOCKS[@]}"; }

# pip leaves behind what an earlier lock had; a leftover pytest plugin, say, is loaded all the same.
remove_leftovers() {
    local leftovers=()
    if [ -f $VENV/.locked ]; then
        mapfile -t leftovers < <(grep -vxFf <(locked_names) $VENV/.locked)
    fi
    if [ ${#leftovers[@]} -gt 0 ]; then
        quietly $VENV/bin/pip uninstall -q -y "${leftovers[@]}" || fail "pip uninstall ${leftovers[*]}"
    fi
    locked_names >$VENV/.locked
}

# An environment's programs hold its path, and its folders the version of its Python: after a move of the checkout
# or an upgrade of Debian it must be made anew.
is_sound() {
    local folder
    folder=$(/usr/bin/python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    [ -d "$VENV/lib/$folder" ] && grep -qsF "$PWD/$VENV/bin/python" $VENV/bin/pip
}

install_venv() {
    local wanted arguments=() lock
    wanted=$(stamp)
    is_sound && [ -f $VENV/.stamp ] && [ "$(cat $VENV/.stamp)" = "$wanted" ] && return
    if ! is_sound; then
        say "making $VENV"
        rm -rf $VENV
        # Debian's own Python, because it is the one that PL/Python embeds: compiled modules must fit both.
        /usr/bin/python3 -m venv $VENV || fail "python3 -m venv"
    fi
    say "installing the CPU build of torch"
    # As pip is configured, so that a local wheel is used where there is one.
    $VENV/bin/pip install -q --no-deps -r requirements/torch-cpu.txt >/dev/null 2>&1 ||
        quietly $VENV/bin/pip install -q --no-deps --index-url "$TORCH_CPU_INDEX" -r requirements/torch-cpu.txt ||
        fail "torch: no local wheel is configured for pip, and the CPU index of PyTorch did not answer"
    say "installing vLLM and the rest of the locked versions (some minutes the first time)"
    for lock in "${LOCKS[@]}"; do arguments+=(-r "$lock"); done
    # --no-deps: the locks are complete, and requirements/engine-cpu.txt says why pip must not add to them.
    quietly $VENV/bin/pip install -q --no-deps "${arguments[@]}" || fail "pip install"
    quietly $VENV/bin/pip install -q --no-deps --no-build-isolation -e . || fail "pip install -e ."
    remove_leftovers
    echo "$wanted" >$VENV/.stamp
}

# --- the extension --------------------------------------------------------------------------------------------

install_extension() {
    local pg_config
    pg_config=${PG_CONFIG:-/usr/lib/postgresql/$(server_major)/bin/pg_config}
    $VENV/bin/pg-bridge install --check --pg-config "$pg_config" >/dev/null 2>&1 && return
    say "installing the extension's files and the native module into PostgreSQL"
    # No byte code: root must not leave files of its own in somebody's checkout.
    quietly as_root env PYTHONDONTWRITEBYTECODE=1 "$PWD/$VENV/bin/pg-bridge" install --pg-config "$pg_config" ||
        fail "pg-bridge install"
}

install_packages
install_venv
install_extension
say "ready"
