"""Running onnxruntime: sessions, probes, segments of a graph, memory."""
