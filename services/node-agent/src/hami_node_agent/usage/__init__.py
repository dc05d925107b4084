"""What containers really use, and who may use how much of it now: HAMi-core's shared regions, read and answered."""
