"""Real engines other than a vLLM alone, asked through SQL; `make test-engines` runs it and prints what each can do."""
