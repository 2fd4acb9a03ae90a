"""Explore: an SDE on a live page, its particles and their density side by side.

Two processes share the work, so that the page is there while torch is still being imported. The
one that was started is the **desk**: it has the SDE, its particles and its density (`run.py`,
`questions.py`), and answers requests (`desk.py`). The other is the **server** of the page
(`server.py`, `page.py`): it knows bokeh, and neither torch nor the SDE. They talk through a pipe,
in plain numbers and arrays.
"""
