"""The experiment: joint learning against decoupled, static and no learning, from one start under one budget."""
