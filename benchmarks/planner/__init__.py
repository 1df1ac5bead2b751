"""What the planner reaches, and what it costs: `make bench-planner`.

Five parts, each a table, with verdicts that are computed from it:

    quality   every strategy on every table: how much of the prompts a prefix cache holds (`contest`, `prefixes`)
    scaling   seconds and peak memory as rows grow, each in a fresh process (`fresh`, `scaling`)
    stand-in  how good characters are in place of tokens, which the planner does not know (`contest`)
    sent      what statements send, by each way in, beside the plan of the whole table and all strategies (`sent`)
    kept      how busy statements keep a fast engine, how soon they ask it, and what they hold meanwhile (`kept`)

The tables are those of `benchmarks.paper_tables` and, where the checkout has them, those of `../shared/data`
(`tables`). `results` holds the figures, `lines` prints them, `verdicts` says which promise is kept.
"""
