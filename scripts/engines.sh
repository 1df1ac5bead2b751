#!/bin/bash
# Installs the other engines that `make test-engines` asks, each into an environment of its own below .venv-engines, in
# the versions of requirements/engines. Run it as often as you like: what is there is left alone. What cannot be had is no
# failure: the reason is kept in .venv-engines/NAME.missing, and the tests of that engine are skipped with it.
#
# `scripts/engines.sh lock NAME` writes requirements/engines/NAME.txt anew from what its first line asks for.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

HOME_OF_ENGINES=.venv-engines
ENGINES=(llama-cpp litellm vllm-router transformers)

say() { printf '[engines] %s\n' "$*"; }

# transformers itself stands in the environment of vLLM, with torch, which is too large to have twice.
python_of() {
    if [ "$1" != transformers ]; then
        readlink -f .venv/bin/python
    elif [ -x .venv-engine/bin/python ]; then
        readlink -f .venv-engine/bin/python
    fi
}

# What the engine's environment is filled from.
engine_stamp() { cat "requirements/engines/$1.txt" "${BASH_SOURCE[0]}" | sha256sum | cut -d' ' -f1; }

is_installed_engine() {
    local venv=$HOME_OF_ENGINES/$1
    [ "$(cat "$venv/.stamp" 2>/dev/null)" = "$(engine_stamp "$1")" ] && is_sound "$venv" "$2"
}

missing() {
    say "no $1: $2"
    printf '%s\n' "$2" >"$HOME_OF_ENGINES/$1.missing"
    rm -rf "${HOME_OF_ENGINES:?}/$1"
}

# Let an environment see the packages of vLLM's, behind its own.
borrow_packages() {
    local own
    own=$(echo "$1"/lib/python3*/site-packages)
    echo "$PWD"/.venv-engine/lib/python3*/site-packages >"$own/vllm.pth"
}

install_one() {
    local name=$1 venv=$HOME_OF_ENGINES/$1 python log
    python=$(python_of "$name")
    if [ -z "$python" ]; then
        missing "$name" "there is no .venv-engine with transformers and torch: see what \`make setup\` says"
        return
    fi
    if is_installed_engine "$name" "$python"; then return; fi
    say "installing $name"
    log=$(mktemp)
    rm -rf "$venv" "$venv.missing"
    if "$python" -m venv "$venv" >"$log" 2>&1 &&
        "$venv/bin/pip" install -q --no-deps --no-compile --retries 1 --timeout 30 -r "requirements/engines/$name.txt" \
            >>"$log" 2>&1; then
        [ "$name" != transformers ] || borrow_packages "$venv"
        engine_stamp "$name" >"$venv/.stamp"
    else
        missing "$name" "it could not be installed: $(grep -iE 'error|no module' "$log" | tail -n 1)"
    fi
    rm -f "$log"
}

# The first line of a lock says what is wanted: `# Wanted: …`.
lock_one() {
    local name=$1 file=requirements/engines/$1.txt venv wanted head
    venv=$(mktemp -d)
    read -ra wanted < <(sed -n 's/^# Wanted: //p' "$file")
    head=$(sed '/^$/q' "$file")
    "$(python_of "$name")" -m venv "$venv"
    "$venv/bin/pip" install -q --no-compile "${wanted[@]}"
    { printf '%s\n\n' "$head" && "$venv/bin/pip" freeze -q; } >"$file.new"
    mv "$file.new" "$file"
    rm -rf "$venv"
}

engines_main() {
    mkdir -p "$HOME_OF_ENGINES"
    if [ "${1:-}" = lock ]; then
        lock_one "$2"
        return
    fi
    local name
    for name in "${ENGINES[@]}"; do install_one "$name"; done
}

engines_main "$@"
