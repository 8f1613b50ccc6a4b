"""A door for other programs: an HTTP server that speaks OpenAI's words and llama-server's, with a route in each request."""
