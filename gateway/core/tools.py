"""The tools a request offers to a model, in every dialect the gateway forwards: by their names.

Functions in `tools` and in the older `functions`, custom tools, those that run at the provider (their type is
their name: web_search, code_interpreter, mcp …), and those that other members bring along. Whatever has
a shape that is not known here is said to be unknown: a rule about tools must not be dodged by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

# Members of a body that say which tools there are, and which of them is to be called.
MEMBERS = (
    "tools", "functions", "plugins", "data_sources", "web_search_options", "mcp_servers", "search_parameters",
    "enable_search",
)  # fmt: skip
LISTS = ("tools", "functions", "plugins", "data_sources")  # of them those that are lists of tools
# And those that stand for one tool each: Chat Completions, Anthropic, xAI, Qwen.
STANDING = {
    "web_search_options": "web_search", "mcp_servers": "mcp", "search_parameters": "web_search",
    "enable_search": "web_search",
}  # fmt: skip
CHOICES = ("tool_choice", "function_call")

_OWN = ("function", "custom")  # types whose tools the caller names and runs itself
_KEYS = frozenset(("name", "type", "function", "custom", "tools", "id"))
_MOST = 4096  # tools of one request that are looked at; with more of them they count as unknown
_DEPTH = 8


class Offered(NamedTuple):
    """Names of all tools (one tool may have several), and whether there may be others."""

    names: tuple[str, ...]
    unknown: bool = False


_BRINGERS = frozenset((*MEMBERS, "prompt", "input"))
_OTHER_BRINGERS = _BRINGERS - {"tools"}
_CHAT_TOOL = frozenset(("type", "function"))
_CHAT_FUNCTION = frozenset(("name", "description", "parameters", "strict"))

NOTHING = Offered(())
UNKNOWN = Offered((), True)


class _Found:
    """What has been found so far."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.unknown = False
        self.seen = 0

    def name(self, value: Any) -> None:
        """One more name; what is none makes a tool nobody knows."""
        if type(value) is str and value:
            self.names[value] = None
        else:
            self.unknown = True


def offered(document: dict[str, Any]) -> Offered:
    """What a request's document offers."""
    if document.keys().isdisjoint(_BRINGERS):
        return NOTHING
    return _usual(document) or _thorough(document)


def _usual(document: dict[str, Any]) -> Offered | None:
    """The usual case, a list of functions as Chat Completions have them and nothing else; else None."""
    tools = document.get("tools")
    if type(tools) is not list or len(tools) > _MOST or not document.keys().isdisjoint(_OTHER_BRINGERS):
        return None
    names = []
    for tool in tools:
        if type(tool) is not dict or tool.keys() != _CHAT_TOOL or tool["type"] != "function":
            return None
        function = tool["function"]
        if type(function) is not dict or not function.keys() <= _CHAT_FUNCTION:
            return None
        name = function.get("name")
        if type(name) is not str or not name:
            return None
        names.append(name)
    return Offered(tuple(names))


def _thorough(document: dict[str, Any]) -> Offered:
    found = _Found()
    for member in LISTS:
        if member in document:
            _list(document[member], found, member == "functions", 0)
    for member, name in STANDING.items():
        value = document.get(member)
        if value is not None and value is not False and value != []:
            found.names[name] = None
    if document.get("prompt") is not None and type(document["prompt"]) is dict:
        found.unknown = True  # a prompt kept at the provider brings its own tools
    items = document.get("input")
    if type(items) is list:
        for item in items:  # items of a response may add tools on the way
            if type(item) is dict and "tools" in item:
                _list(item["tools"], found, False, 0)
    return Offered(tuple(found.names), found.unknown)


def each(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each tool with the member that it stands in; nested ones on their own."""
    for member in ("tools", "functions"):
        tools = document.get(member)
        for tool in tools if type(tools) is list else ():
            yield member, tool
    items = document.get("input")
    for item in items if type(items) is list else ():
        if type(item) is dict and type(item.get("tools")) is list:
            for tool in item["tools"]:
                yield "input", tool


def names_of(tool: Any, legacy: bool = False) -> Offered:
    """The names of one tool; `legacy` where it stands in `functions`."""
    found = _Found()
    _one(tool, found, legacy, 0)
    return Offered(tuple(found.names), found.unknown)


def _list(tools: Any, found: _Found, legacy: bool, depth: int) -> None:
    if tools is None:
        return
    if type(tools) is not list or depth > _DEPTH:
        found.unknown = True
        return
    for tool in tools:
        found.seen += 1
        if found.seen > _MOST:
            found.unknown = True
            return
        _one(tool, found, legacy, depth)


def _one(tool: Any, found: _Found, legacy: bool, depth: int) -> None:
    if type(tool) is not dict:
        found.unknown = True
        return
    _spelling(tool, found)
    kind = tool.get("type")
    names = [tool["name"]] if "name" in tool else []
    for inner in _OWN:
        if inner in tool:
            own = tool[inner]
            names.append(own.get("name") if type(own) is dict else None)
            if type(own) is dict:
                _spelling(own, found)
    if kind is not None and kind not in _OWN:
        names.append(kind)
    if "id" in tool and not names and not legacy:
        names.append(tool["id"])  # a plug-in of the provider
    for name in names or [None]:
        found.name(name)
    if "tools" in tool:
        _list(tool["tools"], found, False, depth + 1)


def _spelling(tool: dict[str, Any], found: _Found) -> None:
    """Some servers fold the case of members' names: they would read another tool than is read here."""
    if not tool.keys() <= _KEYS and any(key.casefold() in _KEYS and key not in _KEYS for key in tool):
        found.unknown = True


def chosen(document: dict[str, Any]) -> Offered:
    """What `tool_choice` or `function_call` says: auto, none, required, or names of tools."""
    found = _Found()
    for member in CHOICES:
        value = document.get(member)
        if value is None:
            continue
        if type(value) is dict:
            _choice(value, found)
        else:
            found.name(value)
    return Offered(tuple(found.names), found.unknown)


def _choice(value: dict[str, Any], found: _Found) -> None:
    kind = value.get("type")
    if kind == "allowed_tools":
        inner = value.get("allowed_tools", value)
        if type(inner) is dict:
            found.name(inner.get("mode"))
            _list(inner.get("tools"), found, False, 0)
        else:
            found.unknown = True
        return
    before = len(found.names)
    for place in (value, value.get("function"), value.get("custom")):
        if type(place) is dict and "name" in place:
            found.name(place["name"])
    if len(found.names) == before or kind not in (None, "tool", *_OWN):
        found.name(kind)
