"""Assembly: a recipe's stages put on a pipeline in the one order, and prompts made into pictures."""
