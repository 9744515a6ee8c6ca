"""The command line's commands: one file each, holding a function of its name. The folder is the list."""
