"""Models and trainings that several experiments share."""
