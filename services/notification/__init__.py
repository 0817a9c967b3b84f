"""Notification owns rules, deliveries, the in-app inbox, agencies' subscriptions and their feeds.

It publishes on `training.notification` and consumes the other three services. Its second group, `notification-feed`,
gives every subscribed agency its own facts, byte for byte, on a topic of its own.
"""
