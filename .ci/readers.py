"""Holds a JUnit file to its schema and HTML pages to the standard: readers.py XSD JUNIT.XML PAGE.HTML…"""

import sys

import html5lib
from lxml import etree

xsd, junit, *pages = sys.argv[1:]
etree.XMLSchema(etree.parse(xsd)).assertValid(etree.parse(junit))
for page in pages:
    with open(page, encoding="utf-8") as file:
        # Strict: the first parse error of the standard ends it.
        html5lib.HTMLParser(strict=True).parse(file.read())
print(f"{junit} and {len(pages)} pages are valid")
