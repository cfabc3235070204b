"""Tests of what is shipped for running the product as a service, or in a container."""
