"""Checkpoints: their config, the manifest of published models, download and upload."""
