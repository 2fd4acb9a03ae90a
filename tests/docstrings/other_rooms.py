"""All other rooms, and the functions of the public modules."""

# name -> why it has none; errors, warnings and enumerations are known by their class
NO_EQUATION: dict[str, str] = {
    "cite": "BibTeX of a method, a text without an equation",
    "Certificate": "holds checks, each of which has its own equation",
    "Identities": "holds checks, each of which has its own equation",
    "SolverTable": "a table of what solvers declare",
    "distributed_context": "joins processes",
    "metrics.NodalDensity": "a protocol: names what metrics read of a density",
    "report.Report": "a page of text, tables and pictures",
    "report.Measured": "a number in a cell of a table",
    "report.Verdict": "a word in a cell of a table",
    "save_certificate": "writes files",
    "training.Callback": "follows a training",
    "training.JSONLines": "writes lines of text",
    "training.StepReport": "numbers of one step, as the training has them",
    "training.TensorBoard": "writes files of another program",
    "which_solver": "a table of what solvers declare",
}
NO_SHAPES: dict[str, str] = {
    "cite": "takes a name and returns a text",
    "Cause": "words and numbers",
    "SolverTable": "its rows are words and numbers",
    "composition.warn_collapse": "looks at weights alone",
    "distributed_context": "joins processes",
    "metrics.NodalDensity": "a protocol: its properties have shapes",
    "report.Claim": "one number and its bounds",
    "report.Report": "a page of text, tables and pictures",
    "report.Measured": "a number in a cell of a table",
    "report.Verdict": "a word in a cell of a table",
    "save_certificate": "writes files",
    "training.Callback": "follows a training",
    "training.JSONLines": "writes lines of text",
    "training.TensorBoard": "writes files of another program",
    "which_solver": "its rows are words and numbers",
}
