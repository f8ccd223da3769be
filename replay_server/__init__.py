"""Program 1: owns the Reverb server, its tables and its checkpoints."""
