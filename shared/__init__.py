"""What the four services share: contracts, the unit of work, outbox, inbox, time, identity, HTTP, processes."""
