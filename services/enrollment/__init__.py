"""Enrollment owns agencies, every person of any role, cohorts, nominations and seats.

It publishes on `training.enrollment` and consumes nothing. `people` is the one collection of the installation that
holds names and addresses; others resolve contacts here, at the moment of sending.
"""
