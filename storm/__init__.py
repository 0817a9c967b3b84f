"""The kernel in a storm: processes killed at named points, neighbours taken away, and then every fact counted.

`python -m storm` runs it on servers of its own, or on those that the environment names. Two tiny services stand for
all: one whose cohorts call out numbers, and one that hears them and answers. Whatever is killed, at the end every
number that was committed must have been heard once, in order, and answered once.
"""
