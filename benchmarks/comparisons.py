"""Tables of the first page of the benchmarks: sdegen beside the best of its peers."""

from benchmarks.lookup import largest, lines, load, number, one, ratio, rows_of, smallest

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200)


def exact_scores():
    """Return sdegen's error over the best peer's, exact scores, by evaluations."""
    title = "distance to the exact flow"
    rows = rows_of("samplers", title)
    counts = [n for n in COUNTS if n >= 5 and n <= 100]
    table = []
    for case in dict.fromkeys(row["dimensions"] for row in rows):
        found_at = {row["evaluations"]: row for row in rows if row["dimensions"] == case}
        for column, name in (
            ("ours over it", "peers on their grids"),
            ("ours over that", "peers on our grid"),
            ("calibrated over best peer", "calibrated, peers on their grids"),
        ):
            values = [ratio(found_at.get(n, {}).get(column)) for n in counts]
            if any(values):
                table.append([f"{case} dimensions" if "modes" not in str(case) else str(case)])
                table[-1] += [name, *values]
    cells = {row["evaluations"]: row for row in rows_of("time_grids", "error over")}
    for column, name in (
        ("median", "median"),
        ("largest", "largest"),
        ("its largest", "calibrated, largest"),
    ):
        values = [ratio(cells.get(n, {}).get(column)) for n in counts]
        table.append(["36 cells of six paths, `timesteps.made_for`", name, *values])
    return lines(["score", "what", *map(str, counts)], table)


def trained_scores():
    """Return sdegen's best distance over the best peer's, trained scores and noise."""
    rows = rows_of("samplers", "trained scores")
    table = []
    for data, kind in ((d, k) for d in ("moons", "digits") for k in TRAINED):
        at = {row["evaluations"]: row for row in rows if row["data"] == data}
        values = [ratio(at[n][f"{kind}, ours"] / at[n][f"{kind}, best peer"]) for n in COUNTS]
        table.append([f"{data}, trained score", TRAINED[kind], *values])
    table.append(
        ["mixture in the plane, exact score", "noisy: sliced W2 to data", *in_the_plane()]
    )
    return lines(["data", "what", *map(str, COUNTS)], table)


TRAINED = {
    "noise-free": "noise-free: distance to unseen data",
    "noisy": "noisy: distance to unseen data",
    "to the network's flow": "distance to the network's own flow",
}


def in_the_plane():
    """Return the best noisy sampler of sdegen over the best of the peers, by evaluations."""
    rows = rows_of("samplers", "noisy samplers, 2")
    ours = [row for row in rows if row["library"] == "sdegen" and "η" in row["sampler"]]
    theirs = [row for row in rows if row["library"] not in ("", "sdegen")]
    best = [
        [min((row[str(n)] for row in side if row.get(str(n))), default=None) for n in COUNTS]
        for side in (ours, theirs)
    ]
    return [ratio(mine / peer) if mine else "" for mine, peer in zip(*best, strict=True)]


def best_rates():
    """Yield each problem of the ensembles: (problem, trajectories, dtype, its rows)."""
    tables = load("ensemble")["tables"]
    rows = [row for title, rows in tables.items() for row in rows if "M steps/s" in row]
    keys = ("problem", "trajectories", "dtype")
    for case in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        yield case, {row["method"]: row for row in rows if tuple(row[k] for k in keys) == case}


def ensembles():
    """Return rates of ensembles beside those of the best peer."""
    table = []
    for (problem, n, dtype), by_method in best_rates():
        mine = [by_method.get(name) for name in ("sdegen", "sdegen, compiled")]
        name, peer = next(
            (name, row)
            for name, row in by_method.items()
            if row.get("over the best peer") == 1 and row not in mine
        )
        shown = [
            f"{row['M steps/s']:.3g} ({ratio(row['over the best peer'], win='above')})"
            if row
            else ""
            for row in mine
        ]
        table.append([problem, str(n), dtype, *shown, f"{name}, {peer['M steps/s']:.3g}"])
    columns = ["problem", "trajectories", "dtype", "sdegen", "compiled", "best peer, its rate"]
    return lines(columns, table)


def channels():
    """Yield the rates of each problem with channels over the best peers', eager and compiled."""
    rows = rows_of("channels", "three noises")
    for problem in dict.fromkeys(row["problem"] for row in rows):
        eager, compiled = (
            ratio(
                one(rows, problem=problem, method=method)["over the best peer of its kind"],
                win="above",
            )
            for method in ("sdegen", "sdegen, compiled")
        )
        yield f"{problem}: {eager} times the best eager peer, compiled {compiled} times"


def densities():
    """Return what a density costs each library, and how good it is."""
    table = []
    for row in rows_of("fokker_planck", "1000 cells"):
        alone = row.get("stepping alone, ms")
        over = row.get("stepping alone, times ours anew")
        table.append(
            [
                row["solver"],
                number(row["error"]),
                f"{row['all anew, ms']:.3g} ({ratio(row['times ours'], win='above')})",
                number(row["again, ms"]),
                f"{alone:.3g} ({ratio(over, win='above')})" if alone else "",
            ]
        )
    return lines(["solver", "error", "anew, ms", "again, ms", "stepping alone, ms"], table)


def learned_scores():
    """Return how near the score of a noising process is learned, as one sentence."""
    wells = [r for r in rows_of("scores", "equal seconds") if r["problem"] == "double well"]
    routes = {row["route"]: row["worst"] for row in wells}
    longer = rows_of("scores", "the best route")
    made = rows_of("scores", "double well, data")
    rates = [abs(row["off"]) for row in rows_of("scores", "entropy production")]
    held = sum(r["W1 to data"] <= r["asked"] and not r["not finite"] for r in made)
    return (
        "relative error at the worst of four times, best route: "
        + ", ".join(
            f"{row['problem']} {100 * row['worst']:.2g} % in {row['CPU seconds']:.0f} s"
            for row in longer
        )
        + f"; double well in {smallest(wells, 'CPU seconds'):.0f} to "
        f"{largest(wells, 'CPU seconds'):.0f} s: "
        + ", ".join(f"{route} {100 * worst:.2g} %" for route, worst in routes.items())
        + f"; generation as near as asked in {held} of {len(made)} runs; entropy production from "
        f"a learned score off by {100 * max(rates):.2g} % at most"
    )
