"""Why an image scores what it scores: its regions beside what the model has learnt is normal."""
