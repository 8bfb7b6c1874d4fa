"""What is really faster: roofline, kernels, fusion, cache, speculation, parallel work, export."""
