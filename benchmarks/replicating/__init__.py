"""The papers' claims on the twins: a file for each table, and the bench that all of them are measured on."""
