"""Links to files outside of docs/ lead to pages of the site."""

from __future__ import annotations

from documentation import links


def test_a_link_to_an_example_leads_to_its_page() -> None:
    """From any depth; anchors stay."""
    text = "see [it](../examples/counter.py#L3)"
    assert links.rewritten(text, "docs/sessions.md", "sessions.md") == "see [it](files/examples/counter.py.md#L3)"
    deeper = links.rewritten("[it](../../examples/counter.py)", "docs/recipes/x.md", "recipes/x.md")
    assert deeper == "[it](../files/examples/counter.py.md)"


def test_links_between_pages_stay() -> None:
    """Also those that go up and down again, and those of files outside of docs/ into it."""
    text = "[a](pools.md#queues), [b](#here), [c](https://example.org/x.md), [d](runbooks/README.md)"
    assert links.rewritten(text, "docs/sessions.md", "sessions.md") == text
    assert links.rewritten("[a](docs/pools.md)", "README.md", "files/README.md") == "[a](../pools.md)"


def test_links_in_code_and_to_nothing_stay() -> None:
    """mkdocs names the latter as broken."""
    text = "[x](../no/such.py)\n\n```md\n[y](../examples/counter.py)\n```\n"
    assert links.rewritten(text, "docs/sessions.md", "sessions.md") == text


def test_a_link_out_of_the_project_stays() -> None:
    """No page shows what is not the project's."""
    assert links.linked("docs/a.md", "../../etc/passwd") is None


def test_pages_of_pages_and_of_folders_are_shown() -> None:
    """What a shown page links to is shown too."""
    shown = links.shown({"docs/index.md": "[read](../README.md) and [run](../examples)"})
    assert {"README.md", "CHANGELOG.md", "examples", "examples/counter.py"} <= shown
    assert not any(name.startswith("docs/") for name in shown)


def test_a_file_is_shown_as_code() -> None:
    """In its language, in a fence that nothing in it ends."""
    assert links.text_of("examples/counter.py").startswith("# examples/counter.py\n\n```python\n")
    assert "* [counter.py](counter.py)" in links.text_of("examples")
