"""The page on which people answer: server-rendered, small plain JavaScript, no build step."""
