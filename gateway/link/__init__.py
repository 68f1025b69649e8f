"""What connects a worker and the supervisor: messages over a socket pair, and the journal."""
