"""Accuracy counts every validation image exactly once, on any number of ranks."""

import json

import pytest
import torch

from classification.evaluation import correct_counts, evaluate
from engine.data import rounds
from tests.classification.evaluate_on_ranks import Numbered, evaluate_random_network
from tests.forked import run_module


class Positions:
    def __getitem__(self, key):
        return key.index


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("num_images", [1, 7, 8, 9])
def test_ranks_together_see_each_image_once_in_the_same_batches(num_images, world_size, monkeypatch):
    seen, lengths = [], set()
    for rank in range(world_size):
        monkeypatch.setattr(rounds, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(rounds, "world_size", lambda: world_size)
        mine = list(rounds.rounds(Positions(), rounds.in_order(num_images, 2), lambda: None, collate=tuple))
        seen += [batch for part in mine for batch in part]
        lengths.add(len(mine))
    assert sorted(seen) == [tuple(range(i, min(i + 2, num_images))) for i in range(0, num_images, 2)]
    assert len(lengths) == 1


def test_correct_counts_are_first_and_among_first_five():
    logits = torch.arange(7.0).repeat(3, 1)
    assert correct_counts(logits, torch.tensor([6, 2, 1])).tolist() == [1, 2]
    assert correct_counts(logits[:, :3], torch.tensor([2, 1, 0])).tolist() == [1, 3]


def test_an_image_without_pair_counts_like_any_other():
    def predict(images):  # right for the images 0 to 2, wrong for the others
        wrong = (images[:, 0, 0, 0] > 20).long()
        return torch.nn.functional.one_hot((images[:, 0, 0, 0] // 10 + wrong) % 3, 3).float()

    stops = []
    metrics = evaluate(
        predict,
        Numbered(7),
        batch_size=2,
        num_workers=0,
        device=torch.device("cpu"),
        check_stop=lambda: stops.append(1),
    )
    assert metrics == {"top1": 300 / 7, "top5": 100.0, "num_images": 7}
    assert len(stops) == 4


def test_a_request_to_stop_ends_the_evaluation():
    class Stop(Exception):
        pass

    def check_stop():
        raise Stop

    with pytest.raises(Stop):
        evaluate(
            lambda images: images,
            Numbered(7),
            batch_size=2,
            num_workers=0,
            device=torch.device("cpu"),
            check_stop=check_stop,
        )


def test_seven_images_on_two_ranks_give_the_number_of_one_process_to_the_last_digit(tmp_path):
    done = run_module("tests.classification.evaluate_on_ranks", tmp_path, ranks=2)
    assert done.returncode == 0, done.stderr
    expected = evaluate_random_network()
    assert expected["num_images"] == 7
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [expected, expected]
