"""The single writer of device state: decides, reserves, binds, remembers, explains."""
