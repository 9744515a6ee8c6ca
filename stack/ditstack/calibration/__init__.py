"""Calibration: factors fitted to the pipe as it stands, kept with the conditions that they were fitted under."""
