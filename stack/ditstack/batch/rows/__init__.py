"""What a batch reads: prompts of every kind, row by row, each checked, numbered and put into batches."""
