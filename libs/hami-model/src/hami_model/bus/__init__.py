"""What travels between the parts, and where: subjects, request and reply messages, events."""
