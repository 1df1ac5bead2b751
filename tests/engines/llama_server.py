"""Starts llama.cpp's own server, which xllamacpp brings as a library. It runs in llama.cpp's environment, not in ours.

.venv-engines/llama-cpp/bin/python tests/engines/llama_server.py demo.gguf 8080 [embeddings]
"""

from __future__ import annotations

import signal
import sys

import xllamacpp
from model_file import NAME

SLOTS = 4
CONTEXT_TOKENS = 2048  # of a slot


def main(file: str, port: int, *, embeddings: bool = False) -> None:
    """Serve until a signal comes; whoever embeds answers nothing."""
    settings = xllamacpp.CommonParams()
    settings.model.path = file
    settings.model_alias = {NAME}
    settings.port = port
    settings.n_parallel = SLOTS
    settings.n_ctx = SLOTS * CONTEXT_TOKENS
    settings.cpuparams.n_threads = 2
    settings.use_jinja = True
    settings.endpoint_metrics = True
    if embeddings:
        settings.embedding = True
        settings.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST
    server = xllamacpp.Server(settings)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(sys.argv[1], int(sys.argv[2]), embeddings="embeddings" in sys.argv[3:])
