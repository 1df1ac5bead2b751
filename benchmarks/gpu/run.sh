#!/bin/bash
# On a bare machine with a GPU, in the checkout that came along: takes what of the kit came with this call and, once all of it
# is there, unpacks it and runs the benchmark. README.md beside this says how.
#
#   benchmarks/gpu/run.sh take                  every call but the last
#   benchmarks/gpu/run.sh [ARGUMENT …]          the last; arguments go to run.py, results into $OUT
set -euo pipefail
umask 022 # PostgreSQL's own user reads the root
began=$(date +%s)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
kit=${PG_BRIDGE_GPU_KIT:-/var/tmp/pg_bridge-gpu-kit}
mkdir -p "$kit/pieces"
find .gpu-kit -type f -exec mv -t "$kit/pieces" {} + 2>/dev/null || true
ls -l "$kit/pieces"
if [ "${1:-}" = take ]; then exit 0; fi
(cd "$kit/pieces" && sha256sum --check --quiet SHA256SUMS) || {
    echo "[gpu] the kit is not all here: another machine than in the call before?" >&2
    exit 1
}

unpack() { mkdir -p "$kit/$1" && cat "$kit/pieces/$1.tar.xz."* | xz -d -T0 | tar -C "$kit/$1" -x; }

# The machine's Python with the machine's packages, ours before them; each of vLLM's processes must find both.
make_environment() {
    local packages
    python3 -m venv --without-pip "$kit/venv"
    packages=$("$kit/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    rmdir "$packages"
    ln -s "$kit/engine/site" "$packages"
    python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$kit/engine/site/machine.pth"
    cat >"$kit/venv/bin/vllm" <<EOF
#!$kit/venv/bin/python
from vllm.entrypoints.cli.main import main

if __name__ == "__main__":
    main()
EOF
    chmod +x "$kit/venv/bin/vllm"
}

if [ ! -d "$kit/venv" ]; then
    unpack root &
    unpack engine
    wait $!
    make_environment
fi
echo "[gpu] unpacked after $(($(date +%s) - began)) s"
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 VLLM_USE_FLASHINFER_SAMPLER=0
exec "$kit/venv/bin/python" -m benchmarks.gpu.run --kit "$kit" --out "${OUT:-$kit/out}" --began "$began" "$@"
