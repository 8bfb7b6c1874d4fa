"""Language models: what makes a trained one smaller, without training it again."""
