"""Program 2 (many): acts in environments and writes rows."""
