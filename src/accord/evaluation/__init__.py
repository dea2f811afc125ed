"""Numbers about replies and models: intervals, calibration, ratings, and what every metric name means."""
