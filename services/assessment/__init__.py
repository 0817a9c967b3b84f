"""Assessment owns module results, change projects (aksi perubahan), graduation and certificates.

It publishes on `training.assessment`, with marks on `training.assessment-restricted` only, and consumes the cohorts and
seats of `training.enrollment` and the timetable, learning groups and attendance of `training.scheduling`, in any order.
"""
