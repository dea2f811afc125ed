"""Claims of the literature as experiments: a statistic, a rule that is a number before it runs, a verdict."""
