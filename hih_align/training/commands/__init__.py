"""The functions behind the training part of the `hih-align` command."""
