"""The method of the paper: network, heatmaps, losses, and the layout of the authors' checkpoints."""
