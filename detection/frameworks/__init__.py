"""The libraries whose detectors a run trains, behind one contract."""
