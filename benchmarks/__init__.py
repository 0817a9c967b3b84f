"""What the kernel costs beside the fastest form known of the same work, measured in one run, side by side.

`python -m benchmarks` prints for each figure: ours, its floor, the ratio, what it must be and whether it is. Rates of
one machine say little about another; the ratios do. The floors, in `benchmarks/floors`, are written by hand: only the
race's uses a part of the kernel, because what it leaves out is what is measured.
"""
