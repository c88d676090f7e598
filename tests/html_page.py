"""Reads an HTML page as strictly as a test should: every element closed, in order."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import numpy as np

VOID = {"meta", "link", "img", "br", "hr", "input", "col", "wbr"}


class Page(HTMLParser):
    """Elements, texts and resources of a page. Raises AssertionError where elements are not closed in order."""

    def __init__(self, source: bytes):
        super().__init__(convert_charrefs=True)
        self.source = source.decode("utf-8")
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.resources: list[str] = []
        self.text = ""
        self.sections: dict[str, str] = {}  # id -> its text
        self._section = ""
        self.feed(self.source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                self.resources.append(value)
        if tag == "section":
            self._section = dict(attrs)["id"]
            self.sections[self._section] = ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> inside {self.open[-5:]}"
        self.open.pop()
        if tag == "section":
            self._section = ""

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data
            if self._section:
                self.sections[self._section] += data

    @property
    def images(self) -> list[np.ndarray]:
        """The decoded images, in order."""
        from onnx2trt.base.opencv import opencv

        found = re.findall(r'<img src="data:image/\w+;base64,([^"]+)"', self.source)
        return [opencv().imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1) for data in found]

    def check_alone(self) -> None:
        """The page needs nothing but itself, and runs nothing."""
        assert "script" not in self.tags and "iframe" not in self.tags
        assert all(value.startswith(("#", "data:")) for value in self.resources), self.resources
        assert len(self.ids) == len(set(self.ids)), "two elements have one name"
        style = "".join(re.findall(r"<style>(.*?)</style>", self.source, re.DOTALL))
        assert "@import" not in style and "url(" not in style
        assert all(f'id="{value[1:]}"' in self.source for value in self.resources if value.startswith("#"))
