"""
The demo: three simulated devices, the local platform, one firmware that is good and one that is
not. `story.py` plays it, `verdict.py` judges what became of it, `view.py` shows it.
"""
