"""Admission: recognises device pods, hands them to our scheduler, refuses with a reason."""
