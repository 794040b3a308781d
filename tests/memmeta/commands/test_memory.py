import json

import pytest
from click.testing import CliRunner

from memmeta.commands.memory import memory


@pytest.mark.parametrize(
    "words", ["--inner-steps 1 --inner-steps 2", "--inner-steps 1 2", "--inner-steps=1 2"]
)
def test_an_option_takes_several_values(words):
    options = ["--filters", "1", "--image-size", "16", "--ways", "2", "--shots", "1", "--json"]
    result = CliRunner().invoke(memory, [*words.split(), "--queries", "1", *options])
    assert result.exit_code == 0, result.output
    assert {row["inner_steps"] for row in json.loads(result.stdout)} == {1, 2}


def test_own_heads_and_backbones_are_named_by_import_paths():
    small = (
        "--inner-steps 1 --cg-steps 1 --filters 2 --image-size 16 --ways 2 --shots 1 --queries 1"
    )
    words = [*small.split(), "--head", "tests.memmeta.test_registry:wide_top", "--json"]
    result = CliRunner().invoke(memory, words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["peak_bytes"] > 0
    result = CliRunner().invoke(memory, [*words, "--backbone", "nowhere:make"])
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "nowhere cannot be imported" in result.output
    assert "did you mean linear?" in CliRunner().invoke(memory, ["--head", "linaer"]).output
