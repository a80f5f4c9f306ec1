"""JADE Graph: planner and executor roles of one shared language model, as one LangGraph state machine."""
