"""Runs: a config becomes values, values become a folder of results."""
