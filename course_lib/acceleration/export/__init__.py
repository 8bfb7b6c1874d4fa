"""The learner's own model in other people's engines: onnxruntime, ExecuTorch, llama.cpp."""
