"""What is said of delivery that yields."""

from __future__ import annotations

from bench.yielding import Rates, Round, figures_of


def test_ratios_are_taken_within_the_rounds() -> None:
    quick = Round(Rates(800, 0, 12), Rates(0, 400, 0), Rates(600, 100, 9))
    slow = Round(Rates(200, 0, 3), Rates(0, 100, 0), Rates(100, 10, 2))
    found = {each.figure: each for each in figures_of([quick, slow, slow])}
    assert {each.case for each in found.values()} == {"delivery yields, 3 rounds"}
    assert found["receiving alone, images/s"].values == [800, 200, 200]
    assert found["its senders, % of one core"].values == [12, 3, 3]
    assert found["index and delivery alone, images/s"].values == [400, 100, 100]
    receiving, delivery = found["receiving beside delivery : alone"], found["delivery beside receiving : alone"]
    assert (receiving.values, receiving.sign, receiving.bar, receiving.holds) == ([0.75, 0.5, 0.5], ">=", 0.6, False)
    assert (delivery.values, delivery.sign, delivery.bar, delivery.holds) == ([0.25, 0.1, 0.1], ">=", 0.2, False)
