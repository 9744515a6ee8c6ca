"""Measure: what a stack costs and what it brings, against the baseline: metrics, benchmarks, gates, pictures."""
