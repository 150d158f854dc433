"""Faults on purpose: each part tries one kind, counts what breaks, and fails if anything does.

    python -m benchmarks.faults messages clock --count 1000 --seed 1

A part is a module here with ``run(options: Options) -> list[Row]`` (:mod:`benchmarks.faults.parts`), bounded in number
and time.
"""
