"""Rates, as commands: `python -m benchmarks.speed.<name>` prints a markdown table."""
