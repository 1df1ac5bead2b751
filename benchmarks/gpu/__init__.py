"""The paper's filters on a GPU: a kit for a bare machine without a network. README.md says how to use it.

    pack     puts the kit together, on a Debian machine: fatbin (smaller libraries), models (shapes and a tokenizer)
    run.sh   unpacks it beside the GPU, and starts run: engines, a sampler of the card, and ask
    ask      in the kit's root, beside a PostgreSQL: asks, and tells what it counted
    results  the lines, with what the card did meanwhile

docs/benchmarks.md says how the figures are measured.
"""
