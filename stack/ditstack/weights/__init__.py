"""Weights: quantized weights read as dense ones; LoRA files, and whether a LoRA moves the output."""
