"""Maths: schedules, predictors, low rank, fidelity, block sparsity: tensors in, tensors out."""
