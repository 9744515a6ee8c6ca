"""Caching: features kept and restored, linears corrected at low rank, diffusers' own caches behind a switch."""
