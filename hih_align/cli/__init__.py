"""The `hih-align` command: one file a command, each loaded when it is called."""
