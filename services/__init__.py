"""The four services. They know each other only by the events in `shared.contracts`."""
