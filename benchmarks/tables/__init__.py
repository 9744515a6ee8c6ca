"""The generated tables: one function for each, of the table's name. The folder is the list."""
