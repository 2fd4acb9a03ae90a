"""Draw all pictures of the benchmarks anew, from what is stored; nothing is measured.

python -m benchmarks.pictures
"""

from benchmarks import samplers, solver_costs, weak_error


def main():
    for benchmark in (samplers, solver_costs, weak_error):
        benchmark.redraw()


if __name__ == "__main__":
    main()
