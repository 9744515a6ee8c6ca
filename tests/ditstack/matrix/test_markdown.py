"""A matrix as Markdown: what users wrote stays words."""

from ditstack.matrix.markdown import render
from ditstack.matrix.schema import Cell, Matrix


def test_no_name_or_reason_becomes_a_cell_a_tag_or_a_link() -> None:
    evil = "x | <script>alert(1)</script>\n# head [a](http://b) `c`"
    cell = Cell(name=evil, words={"cache": evil}, status="failed", reasons=[evil], contradiction=evil)
    matrix = Matrix(
        model=evil, machine="m", versions={}, prompts=[], seed=0, gate={}, axes={"cache": [evil]}, units=[],
        left_out=[evil], pictured=[], interaction_model="", cells=[cell], few_steps=[],
    )  # fmt: skip
    text = render(matrix)
    assert "<script>" not in text
    assert "[a](" not in text
    assert not any(line.startswith("# head") for line in text.splitlines())
    row = next(line for line in text.splitlines() if line.startswith("| x"))
    assert "x \\| &lt;script&gt;" in row
    assert "**failed**" in row
