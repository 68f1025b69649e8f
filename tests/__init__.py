"""The suite: mirrors gateway/, and what it shares."""
