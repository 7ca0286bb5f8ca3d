"""How accurate a network is: metrics, evaluation, reports and calibration."""
