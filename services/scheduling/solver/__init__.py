"""Timetabling: one problem form, an independent checker, and a simple deterministic placement."""
