"""How a run scales: unit costs, a model of them, its predictions and their check."""
