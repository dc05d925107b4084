"""The pure domain: devices, demands, allocations, fit, score, ledger, vendors, wire messages. No I/O, no clock."""
