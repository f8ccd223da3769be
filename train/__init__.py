"""Program 3: samples, updates, publishes and saves."""
