"""Side by side with peers: the same work, the same results, and what it took. `python -m benchmarks` says how.

Never imported by the package.
"""
