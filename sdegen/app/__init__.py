"""The application: command line, configurations, runs, reports and the demo."""

import lazy_loader

# sg.report is looked up here
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["report"])
