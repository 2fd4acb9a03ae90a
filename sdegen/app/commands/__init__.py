"""Commands: what each verb of the command line does. Each turns a config into library calls."""
