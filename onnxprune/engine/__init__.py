"""How onnxruntime is run: sessions, probes, segments of a graph, memory."""
