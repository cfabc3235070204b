"""Workers: starting, watching, replacing and stopping them."""
