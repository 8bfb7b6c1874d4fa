"""What a teacher knows: losses between two models' answers, features, a cache, a training loop."""
