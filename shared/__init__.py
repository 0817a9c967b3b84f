"""What the four services have in common: contracts, the outbox, the inbox, time, identity, HTTP and the processes' frame."""
