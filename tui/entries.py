"""The tree of what was learned: policies under what they came from, rewards, comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widgets import Tree
from textual.widgets.tree import TreeNode

from learning.registry import BASE, Manifest
from tui.comparing import Comparison
from tui.registry_view import DAMAGED, SPEAKS, Known, signs
from tui.words import plain

RATINGS, REWARDS, DAMAGE, COMPARISONS = "ratings", "rewards", "damage", "comparisons"
"""Keys of the branches; every other key is the id of an entry or a comparison, or `base`."""


class Entries(Tree[str]):
    """The tree; a node's data is its key. Space and Enter are left to the screen."""

    ICON_NODE, ICON_NODE_EXPANDED = "+ ", "- "
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "screen.mark", "Mark"),
        Binding("enter", "screen.read", "Read"),
        Binding("left", "fold(False)", "Fold", show=False),
        Binding("right", "fold(True)", "Unfold", show=False),
    ]

    def __init__(self) -> None:
        super().__init__("", id="entries")
        self.show_root = False
        self.guide_depth = 2
        self.auto_expand = False
        self.marked: str | None = None
        self._shown: list[tuple[int, str, str]] = []

    @property
    def current(self) -> str | None:
        """The key under the cursor."""
        return self.cursor_node.data if self.cursor_node is not None else None

    def show(self, known: Known, comparisons: Sequence[Comparison]) -> None:
        """Put everything in; the cursor stays where it was, and what was folded stays folded."""
        lines = [*_lines(known, comparisons)]
        if lines == self._shown:
            return
        first = not self._shown
        self._shown = lines
        at = self.current
        folded = {n.data for n in self._lines_of() if n.allow_expand and not n.is_expanded}
        self.clear()
        parents: list[TreeNode[str]] = [self.root]
        for i, (depth, key, label) in enumerate(lines):
            del parents[depth + 1 :]
            under = i + 1 < len(lines) and lines[i + 1][0] > depth
            parents.append(
                parents[depth].add(
                    Text(label), key, expand=key not in folded, allow_expand=under
                )
            )  # fmt: skip
        self.root.expand()
        speaks = known.state.promoted or BASE
        self.go(speaks if first else at, speaks)

    def go(self, key: str | None, otherwise: str = BASE) -> None:
        """Put the cursor on that key; where it is gone, on the other."""
        for wanted in (key, otherwise, BASE):
            node = next((n for n in self._lines_of() if n.data == wanted), None)
            if node is not None:
                for above in _above(node):
                    above.expand()
                self.get_node_at_line(0)  # gives every node its line
                self.move_cursor(node)
                return

    def show_marks(self) -> None:
        """Draw the lines anew."""
        for node in self._lines_of():
            node.refresh()

    def _lines_of(self) -> list[TreeNode[str]]:
        found, left = [], list(self.root.children)
        while left:
            node = left.pop(0)
            found.append(node)
            left += node.children
        return found

    def action_fold(self, unfold: bool) -> None:
        """Show or hide what lies under the cursor."""
        if self.cursor_node is not None and self.cursor_node.allow_expand:
            (self.cursor_node.expand if unfold else self.cursor_node.collapse)()

    def render_label(self, node: TreeNode[str], base_style: Style, style: Style) -> Text:
        """A sign for the cursor, one for the mark, then the line."""
        out = super().render_label(node, base_style, style)
        cursor = "›" if node is self.cursor_node else " "
        marked = "■" if node.data is not None and node.data == self.marked else " "
        return Text.assemble((f"{cursor}{marked} ", base_style), out)


def _above(node: TreeNode[str]) -> list[TreeNode[str]]:
    out = []
    parent = node.parent
    while parent is not None:
        out.append(parent)
        parent = parent.parent
    return out


def _lines(known: Known, comparisons: Sequence[Comparison]) -> list[tuple[int, str, str]]:
    """Depth, key and label of every line."""
    speaks = f"  {SPEAKS} speaks" if known.state.promoted is None and not known.problem else ""
    out = [(0, RATINGS, "ratings by policy"), (0, BASE, f"base{speaks}")]
    out += [(depth, one.id, _label(one, known)) for depth, one in nested(known.policies)]
    if known.rewards:
        out.append((0, REWARDS, f"rewards ({len(known.rewards)})"))
        out += [(depth, one.id, _label(one, known)) for depth, one in nested(known.rewards)]
    if known.unreadable:
        out.append((0, DAMAGE, f"{DAMAGED} cannot be read ({len(known.unreadable)})"))
        out += [(1, entry_id, f"{DAMAGED} {plain(entry_id)}") for entry_id in known.unreadable]
    if comparisons:
        out.append((0, COMPARISONS, f"comparisons ({len(comparisons)})"))
        out += [(1, c.id, f"{c.sign}  {_short(c.a)} against {_short(c.b)}") for c in comparisons]
    return out


def nested(entries: Sequence[Manifest]) -> list[tuple[int, Manifest]]:
    """Entries under their parents with their depth, from 1 on; siblings as they came.

    One whose parent is not there, or is in a ring of its own, stands with the first.
    """
    ids = {one.id for one in entries}
    out: list[tuple[int, Manifest]] = []
    placed: set[str] = set()

    def place(one: Manifest, depth: int) -> None:
        if one.id in placed:
            return
        placed.add(one.id)
        out.append((depth, one))
        for child in entries:
            if child.parent == one.id:
                place(child, depth + 1)

    for one in entries:
        if one.parent not in ids:
            place(one, 1)
    for one in entries:
        place(one, 1)
    return out


def _label(one: Manifest, known: Known) -> str:
    lost = one.parent is not None and known.entry(one.parent) is None
    gone = f"  {DAMAGED} its parent {plain(one.parent or '')} is gone" if lost else ""
    return f"{one.id}  {signs(one, known)}{gone}"


def _short(policy: str) -> str:
    return policy if policy == BASE else f"p-…{policy[-6:]}"
