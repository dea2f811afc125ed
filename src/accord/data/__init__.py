"""Text comes in: sources of records, chat rendering, batches."""
