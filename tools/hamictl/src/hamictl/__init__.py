"""The command line for people: nodes, pods, explain, events, trace, doctor."""
