from ditstack.recipe.adapter import find


def test_the_blocks_run_again_where_the_noise_has_fallen_far_enough() -> None:
    drift = find("cache", "drift")(drift=0.2)
    assert drift.full_steps([1.0, 0.9, 0.75, 0.7, 0.5]) == [0, 2, 4]
