"""Previews: each dashboard page as a picture, drawn from what its queries really gave."""
