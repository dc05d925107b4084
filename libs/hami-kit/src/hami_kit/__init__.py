"""The shell that all services share: bus, Kubernetes client and reflectors, telemetry, settings, runner, health."""
