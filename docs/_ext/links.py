"""Code in a sentence, such as `sg.simulate` or `Grid(-3, 3, 200)`, links to its page."""

import re

from docutils import nodes
from public_names import pages
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

_NAME = re.compile(
    r"(?P<prefix>sg\.|sdegen\.)?(?P<name>[A-Za-z]\w*(?:\.[A-Za-z]\w*)?)(?P<call>\()?"
)

# public names that are words of English, or usual names of variables: they count with "sg." before
# them or a parenthesis after them
_WORDS = {
    "composition", "contain", "current", "data", "energy", "expectation", "fit", "identities",
    "metrics", "plots", "report", "sample", "train", "training", "update", "variational",
}  # fmt: skip


def page_of(text: str, known: dict[str, str]) -> str | None:
    """Return the page of the public name that code begins with, of a method that of its class."""
    found = _NAME.match(text)
    if not found or not (found["call"] or found.end() == len(text)):
        return None
    if found["name"] in _WORDS and not (found["prefix"] or found["call"]):
        return None
    name, holder = found["name"], found["name"].partition(".")[0]
    if name in known.values():  # as in timesteps.auto, whose full name is longer
        return name
    return known.get(f"sdegen.{name}") or known.get(f"sdegen.{holder}")


class LinkNames(SphinxPostTransform):
    """Puts the links; pages of the interface have their own."""

    default_priority = 900

    def run(self, **kwargs: object) -> None:
        """Link each piece of code that is in no link and no heading."""
        here, known = self.env.docname, self.app.config.sdegen_pages
        if here.startswith("api/"):
            return
        for literal in list(self.document.findall(nodes.literal)):
            page = page_of(literal.astext(), known)
            if page is None or isinstance(literal.parent, nodes.reference | nodes.title):
                continue
            uri = self.app.builder.get_relative_uri(here, f"api/{page}")
            link = nodes.reference("", "", internal=True, refuri=uri)
            literal.replace_self(link)
            link += literal


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.add_config_value("sdegen_pages", pages(), "env", {dict})
    app.add_post_transform(LinkNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
