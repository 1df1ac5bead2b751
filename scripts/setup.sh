#!/bin/bash
# Installs what `make demo` and `make test` need: Debian packages; .venv, with the Python that PL/Python embeds; the
# extension's files, into the PostgreSQL server; and .venv-engine, with vLLM, if ENGINE is not `double`. Run it as often as
# you like: what is there is left alone. It starts no PostgreSQL cluster and touches none that exists.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

LOCKS=(requirements/runtime.txt requirements/dev.txt)
ENGINE_LOCKS=(requirements/engine-cpu.txt)

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

# The majors whose server is installed, newest first.
installed_majors() {
    local initdb
    for initdb in /usr/lib/postgresql/*/bin/initdb; do
        if [ -x "$initdb" ]; then echo "$initdb" | cut -d/ -f5; fi
    done | sort -rn
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

# Whether a repository has the package; what is merely installed does not count.
offers() { [ -n "$(apt-cache madison "$1" 2>/dev/null)" ]; }

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

# The version of Python that a server's PL/Python embeds; nothing if it is not installed.
embedded_python() {
    grep -aoE -m 1 'libpython3\.[0-9]+' "/usr/lib/postgresql/$1/lib/plpython3.so" 2>/dev/null | head -n 1 | cut -c 10-
}

# PL/Python of the release that the machine was upgraded from embeds a Python that cannot have new packages any more.
has_plpython() {
    if [ -x /usr/bin/python3 ] && [ "$(embedded_python "$1")" = "$(python_version /usr/bin/python3)" ]; then return; fi
    offers "postgresql-plpython3-$1"
}

# Set MAJOR, the PostgreSQL to use, and WHY: the newest that is installed and can have PL/Python and headers, else the
# distribution's own.
choose_major() {
    local major left_out=""
    for major in $(installed_majors); do
        if has_plpython "$major" && { is_installed "postgresql-server-dev-$major" || offers "postgresql-server-dev-$major"; }; then
            MAJOR=$major WHY="the newest that is installed$left_out"
            return
        fi
        left_out="$left_out; $major is installed too, but PL/Python for it is not to be had"
    done
    MAJOR=$(offered_major) WHY="the distribution's own$left_out"
    [ -n "$MAJOR" ]
}

install_packages() {
    command -v apt-get >/dev/null ||
        fail "this script knows Debian and its kin; elsewhere see CONTRIBUTING.md for what to install by hand"
    local packages missing=() package
    choose_major || {
        update_package_lists
        choose_major || fail "the distribution offers no package postgresql"
    }
    # libnuma1 is loaded by vLLM's CPU kernels; gcc and make build the native module.
    packages="postgresql-$MAJOR postgresql-plpython3-$MAJOR postgresql-server-dev-$MAJOR python3-venv libnuma1"
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

# A new server package creates and starts a cluster `main`, unless this file says otherwise.
NO_MAIN_CLUSTER=/etc/postgresql-common/createcluster.d/pg_bridge-setup.conf

remove_no_main_cluster() { as_root rm -f "$NO_MAIN_CLUSTER"; }

without_main_cluster() {
    local outcome=0
    if is_installed "postgresql-$MAJOR"; then
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

# --- .venv and .venv-engine -----------------------------------------------------------------------------------

# An environment is described by its folder, the Python that it is made from, and its lock files.
#
# What it was filled from: the lock files and our own metadata.
stamp() { cat "$@" pyproject.toml | sha256sum | cut -d' ' -f1; }

locked_names() { sed -n 's/==.*//p' "$@"; }

# pip leaves behind what an earlier lock had; a leftover pytest plugin, say, is loaded all the same.
remove_leftovers() {
    local venv=$1 leftovers=()
    shift
    if [ -f "$venv/.locked" ]; then
        mapfile -t leftovers < <(grep -vxFf <(locked_names "$@") "$venv/.locked")
    fi
    if [ ${#leftovers[@]} -gt 0 ]; then
        quietly "$venv/bin/pip" uninstall -q -y "${leftovers[@]}" || fail "pip uninstall ${leftovers[*]}"
    fi
    locked_names "$@" >"$venv/.locked"
}

# An environment's programs hold its path, and its folders the version of its Python: after a move of the checkout
# or an upgrade of Debian it must be made anew.
is_sound() {
    local venv=$1 python=$2
    [ -d "$venv/lib/python$(python_version "$python")" ] && "$venv/bin/python" -c '' 2>/dev/null &&
        grep -qsF "$PWD/$venv/bin/python" "$venv/bin/pip"
}

is_filled() {
    local venv=$1
    shift
    [ -f "$venv/.stamp" ] && [ "$(cat "$venv/.stamp")" = "$(stamp "$@")" ]
}

# --no-deps: the locks are complete, and requirements/engine-cpu.txt says why pip must not add to them. --no-compile: of
# the tens of thousands of modules that come with vLLM few are ever imported; Python compiles those as it goes.
pip_install() {
    local venv=$1
    shift
    quietly "$venv/bin/pip" install -q --no-deps --no-compile "$@" || fail "pip install $*"
}

install_locks() {
    local venv=$1 arguments=() lock
    shift
    for lock in "$@"; do arguments+=(-r "$lock"); done
    pip_install "$venv" "${arguments[@]}"
    pip_install "$venv" --no-build-isolation -e .
}

make_sound() {
    local venv=$1 python=$2
    is_sound "$venv" "$python" && return
    say "making $venv with Python $(python_version "$python")"
    rm -rf "$venv"
    "$python" -m venv "$venv" || fail "$python -m venv"
}

install_venv() {
    # The Python that PL/Python embeds: compiled modules must fit both.
    local python embedded
    embedded=$(embedded_python "$MAJOR") || fail "PL/Python of PostgreSQL $MAJOR is not installed"
    python=/usr/bin/python$embedded
    [ -x "$python" ] || fail "PL/Python of PostgreSQL $MAJOR embeds Python $embedded, and there is no $python"
    is_sound .venv "$python" && is_filled .venv "${LOCKS[@]}" && return
    make_sound .venv "$python"
    say "installing what pg_bridge imports, the tests and the linters"
    install_locks .venv "${LOCKS[@]}"
    remove_leftovers .venv "${LOCKS[@]}"
    stamp "${LOCKS[@]}" >.venv/.stamp
}

# Where vLLM lives: an environment of its own, with whichever Python torch is to be had for. Without it all but vLLM works.
install_engine() {
    local choice python torch lock index megabytes why locks
    if is_engine_ready; then return; fi
    choice=$(.venv/bin/python scripts/torch_source.py 2>&1) || {
        ENGINE_IS="no vLLM ($choice): tests that need it are skipped; make devdb ENGINE=double works"
        return
    }
    chosen() { sed -n "s/^$1=//p" <<<"$choice"; }
    python=$(chosen python) torch=$(chosen torch) lock=$(chosen lock) index=$(chosen index)
    megabytes=$(chosen megabytes) why=$(chosen why)
    locks=("${LOCKS[@]}" "${ENGINE_LOCKS[@]}" "$lock")
    make_sound .venv-engine "$python"
    say "installing torch $torch ($why)$([ "$megabytes" -eq 0 ] || echo ", $megabytes MB to fetch")"
    pip_install .venv-engine ${index:+--index-url "$index"} -r "$lock"
    say "installing vLLM (some minutes the first time)"
    install_locks .venv-engine "${locks[@]}"
    remove_leftovers .venv-engine "${locks[@]}"
    ENGINE_IS="torch $torch on Python $(chosen version) ($why)"
    printf '%s\n' "$python" "$ENGINE_IS" "${locks[@]}" >.venv-engine/.choice
    stamp "${locks[@]}" >.venv-engine/.stamp
}

# What an earlier run chose stays, as long as it works: this asks no network.
is_engine_ready() {
    local choice
    [ -f .venv-engine/.choice ] || return 1
    mapfile -t choice <.venv-engine/.choice
    [ -x "${choice[0]}" ] && is_sound .venv-engine "${choice[0]}" && is_filled .venv-engine "${choice[@]:2}" || return 1
    ENGINE_IS=${choice[1]}
}

# --- the extension --------------------------------------------------------------------------------------------

install_extension() {
    local pg_config
    pg_config=${PG_CONFIG:-/usr/lib/postgresql/$MAJOR/bin/pg_config}
    .venv/bin/pg-bridge install --check --pg-config "$pg_config" >/dev/null 2>&1 && return
    say "installing the extension's files and the native module into PostgreSQL"
    # No byte code: root must not leave files of its own in somebody's checkout.
    quietly as_root env PYTHONDONTWRITEBYTECODE=1 "$PWD/.venv/bin/pg-bridge" install --pg-config "$pg_config" ||
        fail "pg-bridge install"
}

main() {
    install_packages
    install_venv
    # Before the engine, so that PostgreSQL and the engine double work where no torch is to be had.
    install_extension
    if [ "${ENGINE:-vllm}" = vllm ]; then install_engine; else ENGINE_IS="no vLLM, as you asked"; fi
    say "ready: PostgreSQL $MAJOR ($WHY), Python $(python_version .venv/bin/python) (PL/Python's), $ENGINE_IS"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then main; fi
