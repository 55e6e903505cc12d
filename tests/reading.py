"""An HTML page as tests read it."""

from html.parser import HTMLParser

EMPTY = {"meta", "img", "br", "link", "input"}  # elements without an end


class Page(HTMLParser):
    """What stands in a page; raises `ValueError` where an element is not closed in its place."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []  # (name, attributes)
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        if self.open:
            raise ValueError(f"not closed: {self.open}")

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if self.open.pop() != tag:
            raise ValueError(f"</{tag}> at {self.getpos()} closes another element")

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every element of a name."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    @property
    def files(self) -> list[str]:
        """The files that it links, from its own folder."""
        return [
            attributes["href"]
            for attributes in self.all("a")
            if not attributes["href"].startswith("#")
        ]
