"""What all backends that are asked over HTTP share."""
