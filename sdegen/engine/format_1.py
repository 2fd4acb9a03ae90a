"""Formats 1 and 2 of stores, of versions 0.1 and 0.2: what a run was known by, in words of today.

Version 0.1 knew an object by all its attributes, private ones among them. This version knows
objects of the library by the arguments that they were made from. Version 0.2 did so too;
arguments that came later have the value that it acted by. What is not translated is another run
to `first_difference`, and so refused.
"""

from typing import Any

# private attributes of the library's objects: the argument that each was, and those that follow
_ARGUMENTS = {
    "_drift": "drift",
    "_diffusion": "diffusion",
    "_slope": "diffusion_derivative",
    "_sigma": "sigma",
}
_FOLLOWS = {
    "ItoProcess": {"_alpha"},
    "Langevin": {"_sigma"},
    "TabulatedBeta": {"_cubic", "_first"},
    "QuadraticBeta": {"_root", "_growth"},
    "CosineBeta": {"_start", "_pace"},
    "GeometricSigma": {"_log_ratio"},
}
# arguments that came after format 2, with what was done before they came
_LATER = {"Moments": {"errors": False}}
# functions of the library that stand around the user's, whose code the versions do not share
_AROUND = ("ItoProcess.__init__.<locals>.<lambda>", "Signature.of.<locals>.<lambda>")
_SCORES = {"ScoreModel": ("ModelScore", "model"), "NoisedMixture": ("MixtureScore", "law")}


def run_spec_of_format_1(run: dict[str, Any]) -> dict[str, Any]:
    """Return what version 0.1 knew a run by, in the words of this version."""
    translated = run_spec_of_format_2(_translate(run))
    return {"boundary" if key == "walls" else key: value for key, value in translated.items()}


def run_spec_of_format_2(value: Any) -> Any:  # noqa: ANN401, JSON
    """Return what version 0.2 knew a run by, with the arguments that came later."""
    if isinstance(value, list):
        return [run_spec_of_format_2(item) for item in value]
    if not isinstance(value, dict):
        return value
    later = {} if "members" in value else _LATER.get(str(value.get("class")), {})
    return later | {key: run_spec_of_format_2(item) for key, item in value.items()}


def without_library_code(value: Any) -> Any:  # noqa: ANN401, JSON
    """Return a spec without the code of the library's own functions, to compare two versions."""
    if isinstance(value, list):
        return [without_library_code(item) for item in value]
    if not isinstance(value, dict):
        return value
    is_ours = "closure" in value and str(value.get("module")).partition(".")[0] == "sdegen"
    return {
        key: without_library_code(item)
        for key, item in value.items()
        if not (is_ours and key in ("code", "module"))
    }


def _translate(value: Any) -> Any:  # noqa: ANN401, JSON
    """Return a description of version 0.1 in the words of this version."""
    if isinstance(value, list):
        return [_translate(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: _translate(item) for key, item in value.items()}
    owner = value.get("of")
    if value.get("method") == "score" and isinstance(owner, dict) and owner["class"] in _SCORES:
        kind, name = _SCORES[owner["class"]]
        return {"class": kind, name: owner}  # a score is an object now
    if value.get("function") in _AROUND:
        return without_library_code(value | {"module": "sdegen"})
    if "class" in value and "members" not in value:  # a class of the library
        follows = _FOLLOWS.get(value["class"], set())
        return {_ARGUMENTS.get(k, k): item for k, item in value.items() if k not in follows}
    return value
