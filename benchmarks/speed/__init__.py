"""Rates, as commands: `python -m benchmarks.speed.NAME`. What they printed is kept in `benchmarks/results/`."""
