"""The five source documents, S0 to S4: their claims, verdicts and checks."""
