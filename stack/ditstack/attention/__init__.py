"""Attention: a kernel answers attention in one pipe's blocks; where text and frames lie; the sparse kernel."""
