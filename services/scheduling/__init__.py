"""Scheduling owns sessions, the competence and availability of trainers, rooms, learning groups and attendance.

It publishes on `training.scheduling` and consumes the cohorts and seats of `training.enrollment`. `solver/` is a pure
package: it knows no service, no database and no clock.
"""
