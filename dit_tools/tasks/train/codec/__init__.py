"""Training of the image codec: its integer tables and its decoder network."""
