"""Tuning: the fastest stack that keeps a gate, and schedules searched for a budget."""
