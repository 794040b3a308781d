"""Preparation of new examples without the data set."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from memmeta.config import parse
from memmeta.data.inputs import Inputs

numbers = st.floats(-1e3, 1e3)


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    data=st.data(),
)
def test_inputs_survive_a_file_and_normalise_like_the_data_set(shape, data, dataset):
    mean = data.draw(st.tuples(*[numbers] * shape[0]))
    std = data.draw(st.tuples(*[st.floats(1e-3, 1e3)] * shape[0]))
    inputs = Inputs(input_shape=shape, mean=mean, std=std)
    assert parse(Inputs, {**inputs.model_dump()}, "x") == inputs
    images = torch.randint(0, 256, (2, *shape[1:], shape[0]), dtype=torch.uint8)
    other = type(dataset)("x", dataset.train, dataset.val, dataset.test, mean, std, "")
    assert torch.equal(inputs.to_input(images), other.to_input(images))
    expected = (images.double() - torch.tensor(mean).double()) / torch.tensor(std).double()
    torch.testing.assert_close(
        inputs.to_input(images).double(), expected.movedim(-1, -3), rtol=1e-4, atol=1e-3
    )
