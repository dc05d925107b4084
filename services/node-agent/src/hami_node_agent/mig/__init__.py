"""MIG instances on demand: which were made for whom, when a card is taken over, and who does the cutting."""
