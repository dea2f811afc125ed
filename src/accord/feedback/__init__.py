"""People come in: the store of what they say, and the page on which they say it."""
