"""Executors that run tasks in this process or on Ray actors, behind one interface."""
