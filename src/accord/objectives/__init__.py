"""Formulas: tensors in, (loss, metrics) out. This room imports torch and itself, nothing else.

Shapes: B sequences, T response slots (padded), V words, N anything flat. `mask` is True on what counts,
everywhere; what stands in a masked slot (even NaN) changes neither loss, gradient nor metrics. Losses take a
`count`, the number of tokens or pairs in the whole optimizer batch over every rank, so that they can be summed
over micro-batches: how a batch is cut changes nothing. Metrics come back with the loss, over the same mask and
divided by the same count, and may be summed in the same way.
"""
