"""Training, fine-tuning and evaluation; needs the ``[train]`` extra."""
