"""A promise: the cheapest setting of a recipe that is proved to keep it, and whether fresh pictures agree."""
