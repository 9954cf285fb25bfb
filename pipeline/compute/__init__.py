"""Where work runs: in this process or on Ray actors, behind one interface."""
