"""Pages of the documentation that are made when it is built: from the methods' own words, the shelf and the results."""
