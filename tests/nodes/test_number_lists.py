"""Lists of numbers that are typed as text."""
import pytest
from firstframe.nodes.number_lists import numbers


@pytest.mark.parametrize("text, found", [("", []), (" \n", []), ("1", [1.0]), ("1, 0.8 .5;-2\n1e-1,", [1.0, 0.8, 0.5, -2.0, 0.1])])
def test_numbers_of_a_text(text, found):
    assert numbers(text, "Node", "input", -10, 10, "1, 2") == found


@pytest.mark.parametrize("text", ["1, half", "11", "nan", "1; -10.5"])
def test_what_is_no_such_number_is_refused(text):
    with pytest.raises(ValueError, match="Node needs numbers from -10 to 10 with commas between them in 'input', such as 1, 2, got"):
        numbers(text, "Node", "input", -10, 10, "1, 2")
