"""The Prometheus metrics of a process; what operators watch."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("training_events_total", "Records received, by consumer group and fate", ["group", "fate"])
PUBLISHED = Counter("training_published_total", "Rows acknowledged by the broker", ["topic"])
OUTBOX_AGE = Gauge("training_outbox_oldest_seconds", "Age of the oldest unpublished row; 0 when there is none")
HELD = Gauge("training_outbox_held_seconds", "Age of the oldest row of a topic that cannot be written", ["topic"])
TIMERS = Counter("training_timers_total", "Timers fired, by kind", ["kind"])
REQUESTS = Histogram("training_request_seconds", "Time to answer, by route and status", ["route", "method", "status"])
LEADER = Gauge("training_relay_leader", "1 while this process holds the relay's lease")
