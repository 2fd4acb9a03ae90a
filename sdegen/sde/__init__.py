"""SDEs: what moves. Each says its drift f and its diffusion g."""
