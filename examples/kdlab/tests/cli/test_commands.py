"""The command: its subcommands, and that every command in the documentation exists."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from kdlab.cli import distill
from kdlab.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[4]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def documented():
    """Lists the commands in the documentation, in programs and in running text."""
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        programs = re.findall(r"(?m)(?:^|# or: )(kdlab [^#\n]*)", text)
        inline = re.findall(r"`(kdlab [^`]*)`", text)
        for line in {*programs, *inline}:
            yield page.name, shlex.split(line)[1:]


DOCUMENTED = sorted({tuple(words) for _, words in documented()})


def shown(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["kdlab", *arguments])
    try:
        code = main()
    except SystemExit as error:  # from the parser
        code = error.code
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_the_documentation_types_most_commands():
    assert {words[0] for words in DOCUMENTED} >= {
        *("distill", "losses", "recipes", "claims", "figures", "report"),
        *("compare", "study", "prepare", "regret"),
    }


@pytest.mark.parametrize("name", sorted({words[0] for words in DOCUMENTED}))
def test_documented_options_exist(name, monkeypatch, capsys):
    assert name in COMMANDS
    lines = [words for words in DOCUMENTED if words[0] == name]
    options = {word.split("=")[0] for words in lines for word in words[1:]}
    options = {option for option in options if option.startswith("--")}
    options -= {"--markdown", "--tyro-print-completion"}
    if options:
        _, text = shown(monkeypatch, capsys, name, "--help")
        assert not [option for option in options if option not in text]


# Those with modules that docs/own.md writes are run by test_own.py.
DISTILL = [
    words
    for words in DOCUMENTED
    if words[0] == "distill"
    and not re.search("[A-Z]", str(words))
    and not {"nets:make", "stripes:open"} & set(words)
]


@pytest.mark.parametrize("words", DISTILL, ids=" ".join)
def test_documented_settings_are_valid(words):
    if "--tyro-print-completion" not in words and "--help" not in words:
        assert list(distill.parse(words[1:], "kdlab distill"))


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_lists_the_commands(arguments, monkeypatch, capsys):
    code, text = shown(monkeypatch, capsys, *arguments)
    assert code == 0
    for name, command in COMMANDS.items():
        assert f"  {name}" in text and command.summary in text


def test_an_unknown_command_names_the_closest(monkeypatch, capsys):
    code, text = shown(monkeypatch, capsys, "distil")
    assert code == 2
    assert "did you mean 'distill'? There are demo, distill" in " ".join(text.split())
