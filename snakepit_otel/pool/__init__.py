"""Worker pools: launch, selection, queueing and supervision of workers."""
