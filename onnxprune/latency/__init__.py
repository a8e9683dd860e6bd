"""Latency of a cut: the sum of its layers' times, which a runtime measures at the widths that a cut can leave."""
