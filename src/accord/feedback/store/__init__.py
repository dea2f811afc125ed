"""The store: questions, people, and an append-only history of what was answered, in SQL."""
