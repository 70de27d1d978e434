"""Alerts: from results to episodes that somebody should look at. Pure: no socket, no store, no clock of its own.

``rules``: what is looked for, and in whom. ``condition``: how long it has been so, with hysteresis and pauses.
``baseline``: what is usual for a person. ``presence``: who is there without a face to be seen. ``episode``: one alert
from opening to closing. ``desk``: all of it together, fed with results. ``wording``: what is said. ``replay``: other
thresholds over stored history.
"""
