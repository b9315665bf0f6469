"""What the verbs on forecasts are made of: recorded panels, protocols, scores, and the tables of their pages."""
