"""The battery: tests of innovations, each with its p-value."""
