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
