"""Memory: what a recipe needs on its device, planned from the sizes of a model's parts; no weight is loaded."""
