"""The packages that the project stands on: whether it is safe to go on with, and under which licences it is."""
