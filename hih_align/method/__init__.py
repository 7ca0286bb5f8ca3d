"""The paper in one room: network, heatmaps, losses, and the layout of the authors' checkpoints."""
