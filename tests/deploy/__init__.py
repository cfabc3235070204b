"""What is shipped for running the product as a service, under what runs services."""
