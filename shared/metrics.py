"""The Prometheus metrics of a process; what operators watch."""

from prometheus_client import Counter, Gauge, Histogram

EVENTS = Counter("training_events_total", "Records received, by consumer group and fate", ["group", "fate"])
PUBLISHED = Counter("training_published_total", "Rows acknowledged by the broker", ["topic"])
OUTBOX_AGE = Gauge("training_outbox_oldest_seconds", "Age of the oldest unpublished row; 0 when there is none")
HELD = Gauge("training_outbox_held_seconds", "Age of the oldest row of a topic that cannot be written", ["topic"])
TIMERS = Counter("training_timers_total", "Timers fired, by kind", ["kind"])
TIMERS_OVERDUE = Gauge(
    "training_timers_overdue_seconds", "How long the earliest due timer has waited; 0 when none is due"
)
TIMERS_FAILED = Gauge("training_timers_failed", "Timers that gave up and wait for an operator")
PARKED = Gauge("training_parked_records", "Records that lie parked for a group; counted up to 10,000", ["group"])
LAG = Gauge(
    "training_group_lag_records", "Records of this process's partitions that its group has yet to do", ["group"]
)
CONSUMING = Gauge("training_consuming", "1 while this process is a member of the group and reads", ["group"])
CLOCK_SKEW = Gauge("training_clock_skew_seconds", "How far this machine's clock is ahead of the database's")
REQUESTS = Histogram("training_request_seconds", "Time to answer, by route and status", ["route", "method", "status"])
LEADER = Gauge("training_relay_leader", "1 while this process holds the relay's lease")
