"""Measuring the accuracy of a network: metrics, evaluation, reports and score calibration."""
