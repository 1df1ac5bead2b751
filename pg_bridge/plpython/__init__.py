"""The PL/Python host."""
