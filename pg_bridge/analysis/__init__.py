"""What a plan is worth: bounds, caches, tokens, and the report of `pg-bridge plan`."""
