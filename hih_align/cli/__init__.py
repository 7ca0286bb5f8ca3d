"""The `hih-align` program: one module per command, imported when the command runs."""
