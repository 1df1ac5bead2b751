"""The paper's workloads, asked through SQL on a real vLLM, beside the other ways to ask them.

    workloads  which questions about which table
    ways       in which order the prompts are sent
    runs       one workload asked in one way: seconds, tokens
    results    the lines that are printed
    charts     the pictures

In: seeded tables of the shape of the paper's seven (Liu et al., arXiv 2403.05821), a model. Out: for each workload and
way the job's seconds and the engine's own counts of tokens. docs/benchmarks.md says how each line is measured, and what
it leaves out.
"""
