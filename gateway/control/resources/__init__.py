"""What the admin API offers, a file each."""
