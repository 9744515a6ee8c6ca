"""Multistep methods: coefficients against closed forms, processes against their definition."""

import torch

from ditstack.maths.multistep import Parameters, Process, adams_bashforth, advance


def test_on_even_nodes_order_2_has_the_coefficients_of_adams_and_bashforth() -> None:
    found = adams_bashforth(torch.linspace(1, 0, 6, dtype=torch.double), 2, 3)
    torch.testing.assert_close(found[0], torch.tensor([1.0, 0.0, 0.0], dtype=torch.double))
    torch.testing.assert_close(found[1:], torch.tensor([1.5, -0.5, 0.0], dtype=torch.double).expand(4, 3))


def test_order_2_integrates_a_line_exactly_on_uneven_nodes() -> None:
    nodes = torch.tensor([1.0, 0.7, 0.55, 0.2, 0.0], dtype=torch.double)
    rows, known = adams_bashforth(nodes, 2), []
    y = 0.5 * nodes[1] ** 2
    for at in range(1, 4):
        known = [nodes[at], nodes[at - 1]]
        y = y + (nodes[at + 1] - nodes[at]) * advance(known, rows[at])
    torch.testing.assert_close(y, torch.zeros((), dtype=torch.double), atol=1e-12, rtol=0)


def test_a_coefficient_of_one_changes_no_bit_and_one_of_zero_is_left_out() -> None:
    newest, broken = torch.randn(8), torch.full((8,), torch.nan)
    assert torch.equal(advance([newest, broken], torch.tensor([1.0, 0.0, 0.0])), newest)


def test_free_numbers_begin_as_the_grid_and_method_that_they_were_given() -> None:
    times = torch.tensor([1000.0, 900.0, 600.0, 300.0], dtype=torch.double)
    method = Parameters(Process(), times, 0.0).method()
    torch.testing.assert_close(method.times, times.float())
    torch.testing.assert_close(method.nodes, torch.tensor([1.0, 0.9, 0.6, 0.3, 0.0]))
    torch.testing.assert_close(method.coefficients, adams_bashforth(method.nodes, 2, 4), atol=1e-6, rtol=0)


def test_times_stay_in_order_whatever_the_free_numbers_are() -> None:
    parameters = Parameters(Process(), torch.tensor([1000.0, 600.0, 100.0]), 0.0)
    with torch.no_grad():
        parameters.gaps.copy_(torch.tensor([3.0, -9.0, 5.0]))
    nodes = parameters.method().nodes
    assert (nodes.diff() < 0).all()


def test_noise_between_timesteps_of_training_lies_on_a_line_of_logarithms() -> None:
    process = Process(1000, torch.tensor([0.1, 1.0, 10.0]))
    torch.testing.assert_close(process.at(torch.tensor([0.0, 0.5, 2.0])), torch.tensor([0.1, 10**-0.5, 10.0]))
